/* split_scan.h - hand-written matchers for the split patterns that most models have, and for the
 * pre-tokenizers that are no pattern. */
#ifndef JANG_TOKENIZER_SPLIT_SCAN_H
#define JANG_TOKENIZER_SPLIT_SCAN_H

#include <stddef.h>

/* Finds the first match at or after from (from < n) in valid UTF-8: returns its end and puts its
 * beginning into *start; *start = n for none. parameter is the scanner's own. */
typedef size_t (*scan_fn)(const char *text, size_t n, size_t from, size_t parameter, size_t *start);

/* The scanner that matches exactly as a pattern does, and its parameter; NULL if there is none. */
scan_fn scan_of_pattern(const char *pattern, size_t n_bytes, size_t *parameter);

/* GPT-2's pattern, which the ByteLevel pre-tokenizer has built in. */
#define SCAN_GPT2_PATTERN                                                                          \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Runs of word characters, and runs of what is neither word nor space (Whitespace). */
size_t scan_words(const char *text, size_t n, size_t from, size_t parameter, size_t *start);
/* Runs of one script; what goes with any script belongs to the run before it (UnicodeScripts). */
size_t scan_scripts(const char *text, size_t n, size_t from, size_t parameter, size_t *start);
/* parameter characters each, the last one fewer (FixedLength). */
size_t scan_fixed(const char *text, size_t n, size_t from, size_t parameter, size_t *start);

#endif
