/* gr_plain.h - plain text: what stands for itself in a JSON string.
 *
 * Characters in UTF-8 other than controls, the quote and the backslash. */
#ifndef JANG_GRAMMAR_GR_PLAIN_H
#define JANG_GRAMMAR_GR_PLAIN_H

#include <stdint.h>

/* Where in a character of UTF-8 we are: at its beginning, before its last one, two or three bytes
 * of any kind, or before a second byte that is restricted. */
enum { AT_START, LAST_1, LAST_2, LAST_3, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4, N_AT, BAD = N_AT };

static inline unsigned plain_lead(uint8_t b) {
    if (b < 0x80) {
        return b < 0x20 || b == '"' || b == '\\' ? BAD : AT_START;
    }
    if (b < 0xc2 || b > 0xf4) {
        return BAD;
    }
    if (b < 0xe0) {
        return LAST_1;
    }
    if (b < 0xf0) {
        return b == 0xe0 ? AFTER_E0 : b == 0xed ? AFTER_ED : LAST_2;
    }
    return b == 0xf0 ? AFTER_F0 : b == 0xf4 ? AFTER_F4 : LAST_3;
}

static inline unsigned plain_step(unsigned at, uint8_t b) {
    static const struct {
        uint8_t lo, hi, then;
    } rows[N_AT] = {
        [LAST_1] = {0x80, 0xbf, AT_START}, [LAST_2] = {0x80, 0xbf, LAST_1},
        [LAST_3] = {0x80, 0xbf, LAST_2},   [AFTER_E0] = {0xa0, 0xbf, LAST_1},
        [AFTER_ED] = {0x80, 0x9f, LAST_1}, [AFTER_F0] = {0x90, 0xbf, LAST_2},
        [AFTER_F4] = {0x80, 0x8f, LAST_2},
    };
    if (at == AT_START) {
        return plain_lead(b);
    }
    return b >= rows[at].lo && b <= rows[at].hi ? rows[at].then : BAD;
}

#endif
