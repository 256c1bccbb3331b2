/* unicode.h - what a character is, as the reference library sees it.
 *
 * One byte per code point: the general category in the low five bits, then flags; and sets and
 * mappings as sorted ranges. The tables are in unicode_data.c, made by
 * scripts/fixtures/tokenizer_unicode.py. */
#ifndef JANG_TOKENIZER_UNICODE_H
#define JANG_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* General categories, in the order of the tables. */
typedef enum unicode_category {
    UNICODE_CN,
    UNICODE_LU,
    UNICODE_LL,
    UNICODE_LT,
    UNICODE_LM,
    UNICODE_LO,
    UNICODE_MN,
    UNICODE_MC,
    UNICODE_ME,
    UNICODE_ND,
    UNICODE_NL,
    UNICODE_NO,
    UNICODE_PC,
    UNICODE_PD,
    UNICODE_PS,
    UNICODE_PE,
    UNICODE_PI,
    UNICODE_PF,
    UNICODE_PO,
    UNICODE_SM,
    UNICODE_SC,
    UNICODE_SK,
    UNICODE_SO,
    UNICODE_ZS,
    UNICODE_ZL,
    UNICODE_ZP,
    UNICODE_CC,
    UNICODE_CF,
    UNICODE_CS,
    UNICODE_CO,
    UNICODE_N_CATEGORIES
} unicode_category;

#define UNICODE_CATEGORY 0x1fu /* mask of the category */
#define UNICODE_WORD 0x20u     /* Oniguruma's \w: alphabetic, marks, numbers, connectors */
#define UNICODE_NUMERIC 0x40u  /* a digit of the Digits pre-tokenizer */
#define UNICODE_MOVES 0x80u    /* normalization may change or move it */

extern const uint16_t unicode_block[8704];
extern const uint8_t unicode_class[];

/* The class byte of a code point; 0 for what is none. */
static inline uint8_t unicode_byte(uint32_t c) {
    return c < 0x110000 ? unicode_class[(size_t)unicode_block[c >> 7] * 128 + (c & 127)] : 0;
}

/* Sets of categories as bit masks. */
#define UNICODE_BIT(category) (1u << (category))
#define UNICODE_L                                                                                  \
    (UNICODE_BIT(UNICODE_LU) | UNICODE_BIT(UNICODE_LL) | UNICODE_BIT(UNICODE_LT) |                 \
     UNICODE_BIT(UNICODE_LM) | UNICODE_BIT(UNICODE_LO))
#define UNICODE_M (UNICODE_BIT(UNICODE_MN) | UNICODE_BIT(UNICODE_MC) | UNICODE_BIT(UNICODE_ME))
#define UNICODE_N (UNICODE_BIT(UNICODE_ND) | UNICODE_BIT(UNICODE_NL) | UNICODE_BIT(UNICODE_NO))

static inline bool unicode_in(uint32_t c, uint32_t categories) {
    return categories >> (unicode_byte(c) & UNICODE_CATEGORY) & 1;
}

/* \w of the Rust crate regex: not the numbers that are no digits, but the two joiners. */
static inline bool unicode_is_word(uint32_t c) {
    uint8_t b = unicode_byte(c);
    return ((b & UNICODE_WORD) && (b & UNICODE_CATEGORY) != UNICODE_NO) || c == 0x200c ||
           c == 0x200d;
}

/* White space (the property White_Space; \s). */
static inline bool unicode_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* Punctuation of the Punctuation and Bert pre-tokenizers: ASCII's symbols and the categories P*. */
bool unicode_is_punctuation(uint32_t c);
/* What BertNormalizer removes as control characters, and as accents; what StripAccents removes. */
bool unicode_is_bert_removed(uint32_t c);
bool unicode_is_bert_mark(uint32_t c);
bool unicode_is_combining(uint32_t c);

/* The lower-case form; U+0130 becomes i and *second U+0307, which is 0 otherwise. */
uint32_t unicode_to_lower(uint32_t c, uint32_t *second);

/* Characters that came after Unicode 14, as rows of first, last and category. */
extern const uint32_t unicode_newer[];
extern const size_t unicode_n_newer;

/* A number for the script of a character, -1 for one that goes with any (unassigned, space).
 * Hiragana, Katakana and Han are one. */
int unicode_script(uint32_t c);

#endif
