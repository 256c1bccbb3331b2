/* norm_precompiled.c - SentencePiece's precompiled character map.
 *
 * The map is a double-array trie (darts-clone) from byte strings to offsets into a blob of
 * replacements, each ended by a 0 byte. A unit of the array holds in its bits: 0-7 the label, 8
 * whether a leaf follows, 9 whether the offset is scaled by 256, 10-30 the offset to the children;
 * a leaf holds the value. As the reference does, text is looked up grapheme by grapheme when one
 * is shorter than six bytes, and otherwise, or when that finds nothing, character by character; the
 * shortest key that begins the part decides for the whole part. */
#include "tokenizer/normalize_steps.h"

#include "base/utf8.h"

#include <string.h>

jang_status norm_precompiled_init(norm_step *step, ctx_t *ctx, const char *what, const char *map,
                                  size_t n) {
    uint32_t n_trie = 0;
    if (n >= 4) {
        const unsigned char *b = (const unsigned char *)map;
        n_trie = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
    if (n < 4 || n_trie > n - 4 || n_trie % 4 != 0 || n_trie == 0) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: the precompiled character map is damaged", what);
    }
    step->n_text = n_trie;
    step->n_content = n - 4 - n_trie;
    step->text = ctx_strndup(ctx, map + 4, step->n_text);
    step->content = ctx_strndup(ctx, map + 4 + n_trie, step->n_content);
    if (!step->text || !step->content) {
        ctx_free(ctx, step->text);
        ctx_free(ctx, step->content);
        step->text = step->content = NULL;
        return ctx_fail_memory(ctx, n);
    }
    return JANG_OK;
}

/* Unit number i of the trie; 0 outside, which has a label that no byte but 0 equals. */
static uint32_t unit_at(const norm_step *step, size_t i) {
    if (i >= step->n_text / 4) {
        return 0;
    }
    const unsigned char *b = (const unsigned char *)step->text + i * 4;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static size_t offset_of(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* A key of the map found at the beginning of a text. */
typedef struct map_match {
    const char *to; /* its replacement; NULL: none was found */
    size_t n_to, n_key;
} map_match;

/* Finds the shortest or the longest key that begins the text. */
static map_match look_up(const norm_step *step, const char *text, size_t n, bool want_longest) {
    size_t at = offset_of(unit_at(step, 0));
    map_match found = {NULL, 0, 0};
    for (size_t i = 0; i < n && text[i]; i++) {
        at ^= (unsigned char)text[i];
        uint32_t unit = unit_at(step, at);
        if ((unit & (1u << 31 | 0xff)) != (unsigned char)text[i]) {
            break;
        }
        at ^= offset_of(unit);
        size_t start = unit_at(step, at) & 0x7fffffffu;
        if ((unit >> 8 & 1) && start <= step->n_content) {
            const char *to = step->content + start;
            found = (map_match){to, strnlen(to, step->n_content - start), i + 1};
            if (!want_longest) {
                break;
            }
        }
    }
    return found;
}

/* Bytes of the grapheme cluster at text. */
static size_t grapheme_length(const char *text, size_t n) {
    size_t length, next;
    utf8proc_int32_t state = 0, c = (utf8proc_int32_t)utf8_read(text, &length);
    while (length < n) {
        utf8proc_int32_t d = (utf8proc_int32_t)utf8_read(text + length, &next);
        if (utf8proc_grapheme_break_stateful(c, d, &state)) {
            break;
        }
        length += next;
        c = d;
    }
    return length;
}

jang_status norm_precompiled(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                             size_t n) {
    (void)s;
    size_t grapheme, length;
    for (size_t i = 0; i < n; i += grapheme) {
        grapheme = grapheme_length(text + i, n - i);
        map_match m = {NULL, 0, 0};
        if (grapheme < 6) {
            m = look_up(step, text + i, grapheme, false);
        }
        if (m.to) {
            buf_put(out, m.to, m.n_to);
            continue;
        }
        for (size_t k = 0; k < grapheme; k += length) {
            utf8_read(text + i + k, &length);
            m = look_up(step, text + i + k, length, false);
            buf_put(out, m.to ? m.to : text + i + k, m.to ? m.n_to : length);
        }
    }
    return JANG_OK;
}

/* ---- SentencePiece's own way ---- */

/* Appends text, collapsing spaces with what is there already and writing them as asked. */
static void put_spaced(buf *out, int options, bool *space_before, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool space = text[i] == ' ';
        if (!space || !(options & 1) || !*space_before) {
            if (space && (options & 2)) {
                buf_puts(out, "\xe2\x96\x81");
            } else {
                buf_putc(out, text[i]);
            }
        }
        *space_before = space;
    }
}

jang_status norm_sentencepiece(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                               size_t n) {
    (void)s;
    bool space_before = true; /* so that leading spaces go */
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        map_match m = {NULL, 0, 0};
        if (step->n_text > 0) {
            m = look_up(step, text + i, n - i, true);
        }
        if (m.to) {
            length = m.n_key;
            put_spaced(out, step->options, &space_before, m.to, m.n_to);
        } else {
            utf8_read(text + i, &length);
            put_spaced(out, step->options, &space_before, text + i, length);
        }
    }
    const char *mark = step->options & 2 ? "\xe2\x96\x81" : " ";
    size_t n_mark = strlen(mark);
    while ((step->options & 1) && out->size >= n_mark &&
           memcmp(out->data + out->size - n_mark, mark, n_mark) == 0) {
        out->size -= n_mark; /* trailing spaces, and what looks like them */
    }
    return JANG_OK;
}
