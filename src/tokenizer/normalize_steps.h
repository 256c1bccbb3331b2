/* normalize_steps.h - the single normalizers; each is a norm_fn. */
#ifndef JANG_TOKENIZER_NORMALIZE_STEPS_H
#define JANG_TOKENIZER_NORMALIZE_STEPS_H

#include "tokenizer/normalize.h"

#include <utf8proc.h>

/* norm_form: the four Unicode normalization forms, by utf8proc. */
#define NORM_NFC (UTF8PROC_STABLE | UTF8PROC_COMPOSE)
#define NORM_NFD (UTF8PROC_STABLE | UTF8PROC_DECOMPOSE)
#define NORM_NFKC (UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT)
#define NORM_NFKD (UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT)

jang_status norm_form(const norm_step *step, norm_scratch *s, buf *out, const char *text, size_t n);

/* One character each: removed, or replaced. */
jang_status norm_lower(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                       size_t n);
jang_status norm_strip_accents(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                               size_t n);
jang_status norm_nmt(const norm_step *step, norm_scratch *s, buf *out, const char *text, size_t n);
jang_status norm_bert_clean(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                            size_t n);
jang_status norm_bert_chinese(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                              size_t n);
jang_status norm_bert_marks(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                            size_t n);

/* White space off the ends; options 1: left, 2: right. */
jang_status norm_strip(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                       size_t n);

/* Bytes as byte-level characters. */
jang_status norm_byte_level(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                            size_t n);

/* norm_precompiled.c: SentencePiece's character map. step->text holds the trie (uint32 units, in
 * bytes as they lie), step->content the replacements, ended by 0 bytes each. */
jang_status norm_precompiled(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                             size_t n);
/* SentencePiece's normalizer on the same map (or none); options 1: collapse white space, 2: write
 * spaces as U+2581. */
jang_status norm_sentencepiece(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                               size_t n);
/* Fills step from the map's bytes: a uint32 size of the trie, the trie, the replacements. */
JANG_MUST_CHECK jang_status norm_precompiled_init(norm_step *step, ctx_t *ctx, const char *what,
                                                  const char *map, size_t n);

jang_status norm_replace(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                         size_t n);
jang_status norm_prepend(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                         size_t n);
jang_status norm_append(const norm_step *step, norm_scratch *s, buf *out, const char *text,
                        size_t n);

/* Appends text with every match of a pattern (a regex, or the fixed string) replaced; decoders use
 * it as well. */
JANG_MUST_CHECK jang_status norm_replace_all(buf *out, tok_regex_scratch *s, const tok_regex *regex,
                                             const char *from, size_t n_from, const char *to,
                                             size_t n_to, const char *text, size_t n);

#endif
