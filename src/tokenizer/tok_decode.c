/* tok_decode.c - running the chain of decoders. */
#include "tokenizer/tok_decode.h"

#include "base/utf8.h"
#include "tokenizer/byte_chars.h"
#include "tokenizer/normalize_steps.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

static jang_status push(dec_run *r, int at, const char *text, size_t n);
static jang_status process(dec_run *r, int at, const char *text, size_t n, bool last);

/* Hands step at's work buffer on. */
static jang_status pass_work(dec_run *r, int at) {
    buf *work = &r->states[at].work;
    jang_status status = buf_status(work);
    return status == JANG_OK ? push(r, at + 1, work->data, work->size) : status;
}

/* ---- Bytes ---- */

/* Passes on the settled part of the held bytes: bad parts become U+FFFD, an unfinished character
 * stays unless the end has come. */
static jang_status settle_bytes(dec_run *r, int at, bool last) {
    dec_state *s = &r->states[at];
    size_t i = 0;
    buf_clear(&s->work);
    while (i < s->held.size) {
        size_t good = utf8_valid_prefix(s->held.data + i, s->held.size - i);
        buf_put(&s->work, s->held.data + i, good);
        i += good;
        if (i == s->held.size) {
            break;
        }
        bool unfinished;
        size_t bad = utf8_bad_length(s->held.data + i, s->held.size - i, &unfinished);
        if (unfinished && !last) {
            break;
        }
        buf_puts(&s->work, REPLACEMENT);
        i += bad;
    }
    size_t left = s->held.size - i;
    if (left > 0) {
        memmove(s->held.data, s->held.data + i, left);
    }
    s->held.size = left;
    return s->work.size ? pass_work(r, at) : buf_status(&s->work);
}

static jang_status push_byte_level(dec_run *r, int at, const char *text, size_t n) {
    byte_chars_take(&r->states[at].held, text, n);
    return settle_bytes(r, at, false);
}

static int hex_digit(char c) {
    char lower = (char)(c | 0x20);
    return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The byte of "<0xNN>", or -1. The reference's number parser takes "+N" as well. */
static int fallback_byte(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int high = text[3] == '+' ? 0 : hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens is one spelling if it is valid UTF-8, else one U+FFFD for each byte. */
static jang_status flush_fallback(dec_run *r, int at) {
    dec_state *s = &r->states[at];
    size_t n = s->held.size;
    if (n == 0) {
        return JANG_OK;
    }
    jang_status status = buf_status(&s->held);
    if (status == JANG_OK && utf8_valid_prefix(s->held.data, n) == n) {
        status = push(r, at + 1, s->held.data, n);
    } else {
        for (size_t i = 0; status == JANG_OK && i < n; i++) {
            status = push(r, at + 1, REPLACEMENT, 3);
        }
    }
    buf_clear(&s->held);
    return status;
}

static jang_status push_fallback(dec_run *r, int at, const char *text, size_t n) {
    int byte = fallback_byte(text, n);
    if (byte >= 0) {
        buf_putc(&r->states[at].held, (char)byte);
        return buf_status(&r->states[at].held);
    }
    jang_status status = flush_fallback(r, at);
    return status == JANG_OK ? push(r, at + 1, text, n) : status;
}

/* ---- Stripping ---- */

static bool begins(const char *text, size_t n, const char *prefix, size_t n_prefix) {
    return n >= n_prefix && memcmp(text, prefix, n_prefix) == 0;
}

/* Bytes of up to max characters c at the front of text. */
static size_t front_run(const char *text, size_t n, const char *c, size_t n_c, size_t max) {
    size_t at = 0;
    while (max > 0 && n_c > 0 && begins(text + at, n - at, c, n_c)) {
        at += n_c;
        max--;
    }
    return at;
}

static size_t back_run(const char *text, size_t n, const char *c, size_t n_c, size_t max) {
    size_t left = n;
    while (max > 0 && n_c > 0 && left >= n_c && memcmp(text + left - n_c, c, n_c) == 0) {
        left -= n_c;
        max--;
    }
    return n - left;
}

/* Strips one whole spelling. The back is looked at on its own, so the two may meet. */
static jang_status strip_whole(dec_run *r, int at, const char *text, size_t n) {
    const dec_step *step = &r->chain->steps[at];
    size_t front = front_run(text, n, step->text, step->n_text, step->start);
    size_t back = back_run(text, n, step->text, step->n_text, step->stop);
    return push(r, at + 1, text + front, front + back < n ? n - front - back : 0);
}

/* Strips a spelling that comes in pieces: the front as it passes, the back from what is held. */
static jang_status strip_fragment(dec_run *r, int at, const char *text, size_t n) {
    const dec_step *step = &r->chain->steps[at];
    dec_state *s = &r->states[at];
    buf_put(&s->held, text, n);
    const char *data = s->held.data;
    size_t from = 0;
    if (!s->busy) {
        from = front_run(data, s->held.size, step->text, step->n_text, step->start - s->seen);
        s->seen += step->n_text ? from / step->n_text : 0;
        s->busy = s->seen == step->start || from < s->held.size;
    }
    size_t back = back_run(data + from, s->held.size - from, step->text, step->n_text, step->stop);
    size_t settled = s->held.size - from - back;
    buf_clear(&s->work);
    buf_put(&s->work, data + from, settled);
    memmove(s->held.data, s->held.data + from + settled, back);
    s->held.size = back;
    return s->work.size ? pass_work(r, at) : buf_status(&s->held);
}

/* ---- One spelling at a time ---- */

/* Removes each occurrence of from in the buffer, or replaces it with a shorter or equal text. */
static void replace_in_place(buf *b, const char *from, const char *to) {
    size_t n_from = strlen(from), n_to = strlen(to), read = 0, write = 0;
    while (read < b->size) {
        if (begins(b->data + read, b->size - read, from, n_from)) {
            memcpy(b->data + write, to, n_to);
            write += n_to;
            read += n_from;
        } else {
            b->data[write++] = b->data[read++];
        }
    }
    b->size = write;
}

/* The reference's clean-up of English spacing, in its order. */
static void clean_up(buf *b) {
    static const char *const pairs[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        replace_in_place(b, pairs[i][0], pairs[i][1]);
    }
}

static jang_status process_replace(dec_run *r, int at, const char *text, size_t n) {
    const dec_step *step = &r->chain->steps[at];
    buf *work = &r->states[at].work;
    buf_clear(work);
    jang_status status = norm_replace_all(work, &r->regex, step->regex, step->text, step->n_text,
                                          step->content, step->n_content, text, n);
    return status == JANG_OK ? pass_work(r, at) : status;
}

static jang_status process_metaspace(dec_run *r, int at, const char *text, size_t n) {
    const dec_step *step = &r->chain->steps[at];
    dec_state *s = &r->states[at];
    bool drop = step->flag && s->seen == 0;
    buf_clear(&s->work);
    jang_status status = norm_replace_all(&s->work, &r->regex, NULL, step->text, step->n_text, " ",
                                          drop ? 0 : 1, text, n);
    s->seen++;
    return status == JANG_OK ? pass_work(r, at) : status;
}

static jang_status process_wordpiece(dec_run *r, int at, const char *text, size_t n) {
    const dec_step *step = &r->chain->steps[at];
    dec_state *s = &r->states[at];
    buf_clear(&s->work);
    if (s->seen++ > 0) {
        if (begins(text, n, step->text, step->n_text)) {
            text += step->n_text;
            n -= step->n_text;
        } else {
            buf_putc(&s->work, ' ');
        }
    }
    buf_put(&s->work, text, n);
    if (step->flag) {
        clean_up(&s->work);
    }
    return pass_work(r, at);
}

static jang_status process_join(dec_run *r, int at, const char *text, size_t n) {
    dec_state *s = &r->states[at];
    buf_clear(&s->work);
    if (s->seen++ > 0) {
        buf_putc(&s->work, ' ');
    }
    buf_put(&s->work, text, n);
    return pass_work(r, at);
}

static jang_status process_bpe(dec_run *r, int at, const char *text, size_t n, bool last) {
    const dec_step *step = &r->chain->steps[at];
    buf *work = &r->states[at].work;
    buf_clear(work);
    jang_status status = norm_replace_all(work, &r->regex, NULL, step->text, step->n_text, " ",
                                          last ? 0 : 1, text, n);
    return status == JANG_OK ? pass_work(r, at) : status;
}

static jang_status process_ctc(dec_run *r, int at, const char *text, size_t n) {
    const dec_step *step = &r->chain->steps[at];
    dec_state *s = &r->states[at];
    buf_clear(&s->work);
    jang_status status =
        norm_replace_all(&s->work, &r->regex, NULL, step->text, step->n_text, "", 0, text, n);
    if (status == JANG_OK && step->flag) {
        clean_up(&s->work);
        buf cleaned = s->work;
        buf_init(&s->work, cleaned.ctx, cleaned.max);
        status = norm_replace_all(&s->work, &r->regex, NULL, step->content, step->n_content, " ", 1,
                                  cleaned.data, cleaned.size);
        buf_free(&cleaned);
    }
    return status == JANG_OK && s->work.size ? pass_work(r, at) : status;
}

/* ---- The chain ---- */

/* BPE must know the last spelling, CTC drops repeated ones: both hold one back. */
static jang_status push_delayed(dec_run *r, int at, const char *text, size_t n) {
    dec_state *s = &r->states[at];
    bool ctc = r->chain->steps[at].kind == DEC_CTC;
    if (ctc && s->busy && s->held.size == n && memcmp(s->held.data, text, n) == 0) {
        return JANG_OK;
    }
    jang_status status = ctc       ? process(r, at, text, n, false)
                         : s->busy ? process(r, at, s->held.data, s->held.size, false)
                                   : JANG_OK;
    buf_clear(&s->held);
    buf_put(&s->held, text, n);
    s->busy = true;
    return status == JANG_OK ? buf_status(&s->held) : status;
}

/* Runs a step on one whole spelling. */
static jang_status process(dec_run *r, int at, const char *text, size_t n, bool last) {
    switch (r->chain->steps[at].kind) {
    case DEC_JOIN:
        return process_join(r, at, text, n);
    case DEC_REPLACE:
        return process_replace(r, at, text, n);
    case DEC_STRIP:
        return strip_whole(r, at, text, n);
    case DEC_METASPACE:
        return process_metaspace(r, at, text, n);
    case DEC_WORDPIECE:
        return process_wordpiece(r, at, text, n);
    case DEC_BPE:
        return process_bpe(r, at, text, n, last);
    case DEC_CTC:
        return process_ctc(r, at, text, n);
    default:
        return push(r, at + 1, text, n);
    }
}

static jang_status push(dec_run *r, int at, const char *text, size_t n) {
    if (at == r->chain->n_steps) {
        buf_put(r->out, text, n);
        return JANG_OK;
    }
    const dec_step *step = &r->chain->steps[at];
    if (step->kind == DEC_FUSE) {
        return push(r, at + 1, text, n);
    }
    if (step->fragments) {
        if (step->kind == DEC_STRIP) {
            return strip_fragment(r, at, text, n);
        }
        buf_put(&r->states[at].held, text, n);
        return buf_status(&r->states[at].held);
    }
    switch (step->kind) {
    case DEC_BYTE_LEVEL:
        return push_byte_level(r, at, text, n);
    case DEC_BYTE_FALLBACK:
        return push_fallback(r, at, text, n);
    case DEC_BPE:
    case DEC_CTC:
        return push_delayed(r, at, text, n);
    default:
        return process(r, at, text, n, false);
    }
}

/* What a step still holds when no more comes. */
static jang_status finish_step(dec_run *r, int at) {
    const dec_step *step = &r->chain->steps[at];
    dec_state *s = &r->states[at];
    if (step->fragments && step->kind != DEC_STRIP && step->kind != DEC_FUSE) {
        buf whole = s->held;
        buf_init(&s->held, whole.ctx, whole.max);
        jang_status status = JANG_OK;
        if (step->kind == DEC_BYTE_LEVEL) {
            byte_chars_take(&s->held, whole.data, whole.size);
            status = settle_bytes(r, at, true);
        } else if (step->kind == DEC_BYTE_FALLBACK) {
            status = push_fallback(r, at, whole.data, whole.size);
            status = status == JANG_OK ? flush_fallback(r, at) : status;
        } else {
            status = process(r, at, whole.data, whole.size, true);
        }
        buf_free(&whole);
        return status;
    }
    switch (step->kind) {
    case DEC_BYTE_LEVEL:
        return settle_bytes(r, at, true);
    case DEC_BYTE_FALLBACK:
        return flush_fallback(r, at);
    case DEC_BPE:
        return s->busy ? process(r, at, s->held.data, s->held.size, true) : JANG_OK;
    default:
        return JANG_OK; /* Strip: what it holds is the back it strips */
    }
}

void dec_run_init(dec_run *r, ctx_t *ctx, const dec_chain *chain) {
    *r = (dec_run){.chain = chain};
    for (int i = 0; i < DEC_MAX_STEPS; i++) {
        buf_init(&r->states[i].held, ctx, BUF_NO_LIMIT);
        buf_init(&r->states[i].work, ctx, BUF_NO_LIMIT);
    }
}

void dec_run_free(dec_run *r) {
    for (int i = 0; i < DEC_MAX_STEPS; i++) {
        buf_free(&r->states[i].held);
        buf_free(&r->states[i].work);
    }
    tok_regex_scratch_free(&r->regex);
}

jang_status dec_push(dec_run *r, buf *out, const char *text, size_t n) {
    r->out = out;
    jang_status status = push(r, 0, text, n);
    return status == JANG_OK ? buf_status(out) : status;
}

jang_status dec_finish(dec_run *r, buf *out) {
    r->out = out;
    jang_status status = JANG_OK;
    for (int i = 0; status == JANG_OK && i < r->chain->n_steps; i++) {
        status = finish_step(r, i);
    }
    for (int i = 0; i < r->chain->n_steps; i++) {
        buf_clear(&r->states[i].held);
        r->states[i].seen = 0;
        r->states[i].busy = false;
    }
    return status == JANG_OK ? buf_status(out) : status;
}

/* ---- One token alone ---- */

/* One step of dec_bytes; *taken tells whether the step applies. */
static jang_status bytes_step(const dec_step *step, dec_run *r, buf *to, const char *text, size_t n,
                              bool *taken) {
    int byte = fallback_byte(text, n);
    *taken = true;
    switch (step->kind) {
    case DEC_BYTE_LEVEL:
        byte_chars_take(to, text, n);
        return JANG_OK;
    case DEC_BYTE_FALLBACK:
        buf_putc(to, (char)byte);
        *taken = byte >= 0;
        return JANG_OK;
    case DEC_REPLACE:
        *taken = !step->fragments;
        return norm_replace_all(to, &r->regex, step->regex, step->text, step->n_text, step->content,
                                step->n_content, text, n);
    case DEC_METASPACE:
    case DEC_BPE:
        return norm_replace_all(to, &r->regex, NULL, step->text, step->n_text, " ", 1, text, n);
    case DEC_WORDPIECE: {
        size_t prefix = begins(text, n, step->text, step->n_text) ? step->n_text : 0;
        buf_puts(to, prefix ? "" : " ");
        buf_put(to, text + prefix, n - prefix);
        return JANG_OK;
    }
    default:
        *taken = false;
        return JANG_OK;
    }
}

jang_status dec_bytes(const dec_chain *chain, dec_run *r, buf *out, const char *text, size_t n) {
    buf b[2];
    buf_init(&b[0], chain->ctx, BUF_NO_LIMIT);
    buf_init(&b[1], chain->ctx, BUF_NO_LIMIT);
    buf_put(&b[0], text, n);
    jang_status status = buf_status(&b[0]);
    int from = 0;
    for (int i = 0; status == JANG_OK && i < chain->n_steps; i++) {
        bool taken;
        buf_clear(&b[1 - from]);
        status = bytes_step(&chain->steps[i], r, &b[1 - from], b[from].data, b[from].size, &taken);
        from = taken ? 1 - from : from;
        if (taken &&
            (chain->steps[i].kind == DEC_BYTE_FALLBACK || chain->steps[i].kind == DEC_BYTE_LEVEL)) {
            break; /* bytes now, no longer text */
        }
    }
    buf_put(out, b[from].data, b[from].size);
    buf_free(&b[0]);
    buf_free(&b[1]);
    return status == JANG_OK ? buf_status(out) : status;
}
