/* tok_files.c - the files in which models come with a vocabulary, and how each is opened. */
#include "tokenizer/tokenizer.h"

#include <string.h>

/* How Kimi K2 and Kimi Linear split text (Moonshot's tokenization_kimi.py): runs of Chinese
 * characters, then words that end where small letters are followed by capital ones. Classes without
 * Chinese characters are spelled by looking ahead, which PCRE2 knows. */
#define NOT_HAN "(?!\\p{Han})"
#define UPPER "(?:" NOT_HAN "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}])"
#define LOWER "(?:" NOT_HAN "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}])"
#define SHORT_FORMS "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
static const char kimi_pattern[] =
    "\\p{Han}+|"
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" SHORT_FORMS "|"
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" SHORT_FORMS "|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static jang_status open_kimi(tok **out, ctx_t *ctx, const char *what, const char *data, size_t n,
                             const char *config, size_t n_config) {
    return tok_open_tiktoken(out, ctx, what, data, n, kimi_pattern, config, n_config);
}

/* A SentencePiece model begins with the tag of its first piece, a line feed. Meta's first releases
 * of Llama 3 and GLM-4 have lines of base64 under the same name, split as GPT-4 does. */
static jang_status open_model(tok **out, ctx_t *ctx, const char *what, const char *data, size_t n,
                              const char *config, size_t n_config) {
    const char *blank = n && data[0] > ' ' && data[0] < 0x7f ? memchr(data, ' ', n) : NULL;
    if (blank && blank + 1 < data + n && blank[1] >= '0' && blank[1] <= '9') {
        return tok_open_tiktoken(out, ctx, what, data, n, NULL, config, n_config);
    }
    return tok_open_sentencepiece(out, ctx, what, data, n, config, n_config);
}

const tok_file tok_files[] = {
    {"tokenizer.json", tok_open},
    {"tokenizer.model", open_model},
    {"tiktoken.model", open_kimi},
};
const size_t tok_n_files = sizeof tok_files / sizeof *tok_files;
