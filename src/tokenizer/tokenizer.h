/* tokenizer.h - text to token ids and back, as Hugging Face's tokenizers library does it.
 *
 * A tokenizer is read from the text of tokenizer.json and, where there is one, of
 * tokenizer_config.json. It is immutable after tok_open: any number of threads may encode and
 * decode with it at once. */
#ifndef JANG_TOKENIZER_H
#define JANG_TOKENIZER_H

#include "base/buf.h"
#include "base/json.h"

typedef struct tok tok;

/* Opens a tokenizer. json is the text of tokenizer.json; config that of tokenizer_config.json or
 * NULL. Neither is needed afterwards. what names the source in messages. */
JANG_MUST_CHECK jang_status tok_open(tok **out, ctx_t *ctx, const char *what, const char *json,
                                     size_t n_json, const char *config, size_t n_config);

/* Opens a SentencePiece model (tokenizer.model, a protobuf; BPE or Unigram). Control symbols are
 * special tokens, which the text may hold; special tokens and add_bos_token, add_eos_token of
 * config (or NULL) are heeded. Words come out as SentencePiece makes them. */
JANG_MUST_CHECK jang_status tok_open_sentencepiece(tok **out, ctx_t *ctx, const char *what,
                                                   const char *data, size_t n_data,
                                                   const char *config, size_t n_config);

/* Opens a tiktoken vocabulary: lines of a token in base64 and its rank. The file does not say how
 * text is split: pattern does (a regular expression; NULL for that of GPT-4). Special tokens come
 * from "added_tokens_decoder" of config (or NULL). */
JANG_MUST_CHECK jang_status tok_open_tiktoken(tok **out, ctx_t *ctx, const char *what,
                                              const char *data, size_t n_data, const char *pattern,
                                              const char *config, size_t n_config);

/* A file that may hold a model's vocabulary, and what opens it. */
typedef struct tok_file {
    const char *name;
    jang_status (*open)(tok **out, ctx_t *ctx, const char *what, const char *data, size_t n_data,
                        const char *config, size_t n_config);
} tok_file;

/* All of them; the first that a model has counts. */
extern const tok_file tok_files[];
extern const size_t tok_n_files;

void tok_close(tok *t);

/* Number of ids: 1 + the largest. */
int32_t tok_size(const tok *t);

/* A growing list of ids. */
typedef struct tok_ids {
    int32_t *ids;
    size_t n, capacity;
} tok_ids;
void tok_ids_free(ctx_t *ctx, tok_ids *ids);

#define TOK_ADD_SPECIAL 1u /* the post-processor adds begin and end tokens */
#define TOK_NO_SPECIAL 2u  /* special tokens in the text are plain text */

/* Appends the ids of text. Invalid UTF-8 is read as U+FFFD (one for each maximal bad part, as
 * Python's errors="replace"). */
JANG_MUST_CHECK jang_status tok_encode(const tok *t, tok_ids *out, const char *text, size_t n_bytes,
                                       unsigned flags);

/* Appends the ids of two texts as the post-processor puts them together, for models that judge one
 * text by another, and their token types (0: first text, 1: second, as BERT has it). An error
 * leaves both lists as they were; JANG_ERR_UNSUPPORTED: processors in sequence that each add
 * tokens, of which a vocabulary file does not say what they make of two texts. */
JANG_MUST_CHECK jang_status tok_encode_pair(const tok *t, tok_ids *ids, tok_ids *types,
                                            const char *first, size_t n_first, const char *second,
                                            size_t n_second, unsigned flags);

#define TOK_SKIP_SPECIAL 1u /* leave out special tokens */

/* Appends the text of ids: whole, as tokenizers' decode. JANG_ERR_ARGUMENT for an id out of range.
 */
JANG_MUST_CHECK jang_status tok_decode(const tok *t, buf *out, const int32_t *ids, size_t n,
                                       unsigned flags);

/* Streaming decode: pushing ids one at a time gives, put together, the bytes of tok_decode over
 * all of them. An unfinished character is held back until it is whole. */
typedef struct tok_stream tok_stream;
JANG_MUST_CHECK jang_status tok_stream_new(tok_stream **out, const tok *t, unsigned flags);
void tok_stream_free(tok_stream *s);
/* Appends to out what id made known. */
JANG_MUST_CHECK jang_status tok_stream_push(tok_stream *s, buf *out, int32_t id);
/* Appends what is still held back. The stream is then as new. */
JANG_MUST_CHECK jang_status tok_stream_finish(tok_stream *s, buf *out);

/* The id of a token by its vocabulary spelling or added-token content, or -1. */
int32_t tok_id(const tok *t, const char *token, size_t n_bytes);
/* The vocabulary spelling of an id, borrowed; NULL if there is none. */
const char *tok_token(const tok *t, int32_t id, size_t *n_bytes);
/* Appends the bytes that one token stands for, whatever its neighbours (for grammars, logprobs). */
JANG_MUST_CHECK jang_status tok_token_bytes(const tok *t, buf *out, int32_t id);
/* Whether an id is an added token marked special. */
bool tok_is_special(const tok *t, int32_t id);

/* tokenizer_config.json as parsed, borrowed; NULL if there was none. The named special tokens
 * (bos_token, eos_token, ...) are found in it, as a string or as an object with "content". */
const json_t *tok_config(const tok *t);

#endif
