/* tok_decode.h - decoders: spellings of tokens back to text.
 *
 * The decoder of tokenizer.json becomes a flat chain of filters. Each gets one spelling after
 * another and passes on what is settled, so that decoding a stream and decoding a list are one
 * thing. After a filter that fuses (Fuse, ByteLevel) the rest of the chain sees one long spelling
 * in pieces: "fragments". */
#ifndef JANG_TOKENIZER_TOK_DECODE_H
#define JANG_TOKENIZER_TOK_DECODE_H

#include "base/json.h"
#include "tokenizer/tok_regex.h"

typedef enum dec_kind {
    DEC_JOIN, /* no decoder: spellings with a space between */
    DEC_BYTE_LEVEL,
    DEC_BYTE_FALLBACK,
    DEC_FUSE,
    DEC_REPLACE,
    DEC_STRIP,
    DEC_METASPACE,
    DEC_WORDPIECE,
    DEC_BPE,
    DEC_CTC,
    DEC_N_KINDS
} dec_kind;

typedef struct dec_step {
    dec_kind kind;
    bool fragments; /* it gets one spelling in pieces */
    tok_regex *regex;
    char *text; /* Replace: what; WordPiece: prefix; BPE: suffix; CTC: pad; Strip, Metaspace: a
                   character; owned */
    size_t n_text;
    char *content; /* Replace: by what; CTC: word delimiter; owned */
    size_t n_content;
    size_t start, stop; /* Strip */
    bool flag;          /* WordPiece, CTC: cleanup; Metaspace: the first one loses its space */
} dec_step;

#define DEC_MAX_STEPS 16

typedef struct dec_chain {
    ctx_t *ctx;
    dec_step steps[DEC_MAX_STEPS];
    int n_steps;
} dec_chain;

/* Reads the "decoder" object; NULL: spellings are joined by spaces. */
JANG_MUST_CHECK jang_status dec_read(dec_chain *chain, ctx_t *ctx, const char *what,
                                     const json_t *json);
void dec_free(dec_chain *chain);

/* What one step remembers. */
typedef struct dec_state {
    buf held;    /* bytes that are not settled yet */
    buf work;    /* its output under way */
    size_t seen; /* spellings so far; Strip on fragments: characters stripped */
    bool busy;   /* BPE, CTC: a spelling is held; Strip: past the front */
} dec_state;

typedef struct dec_run {
    const dec_chain *chain;
    buf *out;
    tok_regex_scratch regex;
    dec_state states[DEC_MAX_STEPS];
} dec_run;

void dec_run_init(dec_run *r, ctx_t *ctx, const dec_chain *chain);
void dec_run_free(dec_run *r);

/* Sends a spelling (valid UTF-8) through the chain; what is settled goes to out. */
JANG_MUST_CHECK jang_status dec_push(dec_run *r, buf *out, const char *text, size_t n);
/* Sends on what is held back. The run is then as new. */
JANG_MUST_CHECK jang_status dec_finish(dec_run *r, buf *out);

/* Appends the bytes that a spelling stands for on its own, whatever its neighbours. */
JANG_MUST_CHECK jang_status dec_bytes(const dec_chain *chain, dec_run *r, buf *out,
                                      const char *text, size_t n);

#endif
