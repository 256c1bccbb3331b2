/* tok_sentencepiece.c - tokenizer.model, SentencePiece's protobuf.
 *
 * Of the message ModelProto these fields are read (sentencepiece_model.proto):
 *   1 pieces            each 1 text, 2 score (float), 3 type
 *   2 trainer_spec      3 model type, 35 byte fallback, 40-42 ids of unk, bos, eos
 *   3 normalizer_spec   2 character map, 3 dummy prefix, 4 remove extra spaces, 5 escape spaces
 * A BPE model has no merges: any two neighbours merge whose joined text is a piece, the one with
 * the highest score first. So each way to put a piece together is a merge with the piece's rank. */
#include "tokenizer/tok_impl.h"

#include "base/half.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_MAX 2048 /* bytes */
#define SPACE_MARK "\xe2\x96\x81"

/* ---- Protobuf ---- */

typedef struct proto {
    const uint8_t *data;
    size_t n, at;
    bool bad;
} proto;

/* A field: value for numbers, part for bytes. */
typedef struct proto_field {
    uint32_t number;
    uint64_t value;
    proto part;
} proto_field;

static uint64_t read_varint(proto *p) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (p->at == p->n) {
            break;
        }
        uint8_t byte = p->data[p->at++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return value;
        }
    }
    p->bad = true;
    return 0;
}

/* Takes n bytes as a field's value. */
static void read_part(proto *p, proto_field *f, uint64_t n) {
    if (n > p->n - p->at) {
        p->bad = true;
        return;
    }
    f->part = (proto){p->data + p->at, (size_t)n, 0, false};
    p->at += (size_t)n;
    if (n == 4 || n == 8) {
        for (size_t i = (size_t)n; i-- > 0;) {
            f->value = f->value << 8 | f->part.data[i];
        }
    }
}

/* Reads the next field; false at the end or when it is damaged (p->bad). */
static bool next_field(proto *p, proto_field *f) {
    if (p->at == p->n || p->bad) {
        return false;
    }
    uint64_t key = read_varint(p);
    *f = (proto_field){.number = (uint32_t)(key >> 3)};
    switch (key & 7) {
    case 0:
        f->value = read_varint(p);
        break;
    case 1:
        read_part(p, f, 8);
        break;
    case 2: {
        uint64_t n = read_varint(p);
        read_part(p, f, p->bad ? 0 : n);
        break;
    }
    case 5:
        read_part(p, f, 4);
        break;
    default:
        p->bad = true;
    }
    return !p->bad;
}

/* ---- The message ---- */

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

typedef struct sp_piece {
    const char *text; /* borrowed from the file */
    uint32_t n_bytes;
    float score;
    uint8_t type;
} sp_piece;

typedef struct sp_model {
    ctx_t *ctx;
    const char *what;
    sp_piece *pieces;
    size_t n, capacity;
    proto map;
    uint64_t model_type; /* 1 Unigram, 2 BPE */
    bool byte_fallback, dummy_prefix, collapse, escape;
    int32_t unk, bos, eos;
} sp_model;

static jang_status damaged(const sp_model *m) {
    return ctx_fail(m->ctx, JANG_ERR_FORMAT, "%s: not a SentencePiece model, or damaged", m->what);
}

static jang_status read_piece(sp_model *m, proto p) {
    sp_piece piece = {.text = "", .type = PIECE_NORMAL};
    proto_field f;
    while (next_field(&p, &f)) {
        if (f.number == 1) {
            piece.text = (const char *)f.part.data;
            piece.n_bytes = (uint32_t)(f.part.n <= PIECE_MAX ? f.part.n : PIECE_MAX + 1);
        } else if (f.number == 2) {
            piece.score = f32_from_bits((uint32_t)f.value);
        } else if (f.number == 3) {
            piece.type = (uint8_t)(f.value <= PIECE_BYTE ? f.value : 0);
        }
    }
    if (p.bad || !piece.text || piece.type == 0 || m->n == TOK_MAX_IDS || isnan(piece.score) ||
        piece.n_bytes > PIECE_MAX || utf8_valid_prefix(piece.text, piece.n_bytes) < piece.n_bytes) {
        return damaged(m);
    }
    if (m->n == m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : 1024;
        sp_piece *pieces = ctx_realloc(m->ctx, m->pieces, capacity * sizeof *pieces);
        if (!pieces) {
            return ctx_fail_memory(m->ctx, capacity * sizeof *pieces);
        }
        m->pieces = pieces;
        m->capacity = capacity;
    }
    m->pieces[m->n++] = piece;
    return JANG_OK;
}

static jang_status read_trainer(sp_model *m, proto p) {
    proto_field f;
    while (next_field(&p, &f)) {
        int32_t id = (int32_t)f.value;
        switch (f.number) {
        case 3:
            m->model_type = f.value;
            break;
        case 35:
            m->byte_fallback = f.value != 0;
            break;
        case 40:
            m->unk = id;
            break;
        case 41:
            m->bos = id;
            break;
        case 42:
            m->eos = id;
            break;
        default:
            break;
        }
    }
    return p.bad ? damaged(m) : JANG_OK;
}

static jang_status read_normalizer(sp_model *m, proto p) {
    proto_field f;
    while (next_field(&p, &f)) {
        switch (f.number) {
        case 2:
            m->map = f.part;
            break;
        case 3:
            m->dummy_prefix = f.value != 0;
            break;
        case 4:
            m->collapse = f.value != 0;
            break;
        case 5:
            m->escape = f.value != 0;
            break;
        default:
            break;
        }
    }
    return p.bad ? damaged(m) : JANG_OK;
}

static jang_status read_message(sp_model *m, const char *data, size_t n) {
    proto p = {(const uint8_t *)data, n, 0, false};
    proto_field f;
    jang_status status = JANG_OK;
    while (status == JANG_OK && next_field(&p, &f)) {
        status = f.number == 1   ? read_piece(m, f.part)
                 : f.number == 2 ? read_trainer(m, f.part)
                 : f.number == 3 ? read_normalizer(m, f.part)
                                 : JANG_OK;
    }
    if (status == JANG_OK && (p.bad || m->n == 0)) {
        status = damaged(m);
    }
    if (status == JANG_OK && m->model_type != 1 && m->model_type != 2) {
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                          "%s: SentencePiece model type %llu is unknown; Unigram and BPE are known",
                          m->what, (unsigned long long)m->model_type);
    }
    return status;
}

/* ---- Vocabulary ---- */

/* Whether the model may find a piece in a word. */
static bool in_words(const sp_piece *p) {
    return p->type == PIECE_NORMAL || p->type == PIECE_USER;
}

static jang_status add_pieces(tok *t, const sp_model *m) {
    jang_status status = vocab_reserve(&t->vocab, m->n, m->n * 8);
    for (size_t i = 0; status == JANG_OK && i < m->n; i++) {
        const sp_piece *p = &m->pieces[i];
        if (t->kind == TOK_UNIGRAM) {
            status = uni_add(&t->uni, p->text, p->n_bytes, in_words(p) ? (double)p->score : NAN);
        } else {
            status = vocab_add(&t->vocab, p->text, p->n_bytes, (int32_t)i);
        }
        bool special = p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN;
        if (status == JANG_OK && p->n_bytes > 0 && (special || p->type == PIECE_USER)) {
            status = added_add(&t->added, (added_token){.content = (char *)(uintptr_t)p->text,
                                                        .n_content = p->n_bytes,
                                                        .id = (int32_t)i,
                                                        .special = special});
        }
    }
    return status;
}

typedef struct sp_order {
    float score;
    uint32_t piece;
} sp_order;

static int by_score(const void *a, const void *b) {
    const sp_order *x = a, *y = b;
    return x->score > y->score   ? -1
           : x->score < y->score ? 1
                                 : (x->piece > y->piece) - (x->piece < y->piece);
}

/* Adds the merges; pieces with equal scores have equal ranks. */
static jang_status add_merges(tok *t, const sp_model *m) {
    sp_order *order = ctx_array(m->ctx, m->n, sizeof *order);
    bpe_batch *batch = NULL;
    jang_status status =
        order ? bpe_batch_new(&batch, &t->bpe, m->what, m->n * 2) : ctx_fail_memory(m->ctx, m->n);
    for (size_t i = 0; order && i < m->n; i++) {
        order[i] = (sp_order){m->pieces[i].score, (uint32_t)i};
    }
    if (status == JANG_OK) {
        qsort(order, m->n, sizeof *order, by_score);
    }
    uint32_t rank = 0;
    for (size_t i = 0; status == JANG_OK && i < m->n; i++) {
        const sp_piece *p = &m->pieces[order[i].piece];
        rank += i > 0 && order[i].score < order[i - 1].score;
        if (in_words(p)) {
            status = bpe_add_splits(batch, rank, p->text, p->n_bytes);
        }
    }
    if (status == JANG_OK) {
        status = bpe_batch_finish(batch);
    }
    bpe_batch_free(batch);
    ctx_free(m->ctx, order);
    return status;
}

/* ---- The tokenizer ---- */

static jang_status set_up_chains(tok *t, const sp_model *m) {
    static const char decoder[] =
        "{\"type\":\"Sequence\",\"decoders\":["
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" SPACE_MARK "\"},\"content\":\" \"},"
        "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
        "{\"type\":\"Strip\",\"content\":\" \",\"start\":%d,\"stop\":0}]}";
    buf text;
    json_t *json = NULL;
    buf_init(&text, t->ctx, 1024);
    buf_printf(&text, decoder, m->collapse ? INT32_MAX : m->dummy_prefix ? 1 : 0);
    jang_status status = json_parse(&json, t->ctx, m->what, text.data, text.size);
    buf_free(&text);
    if (status == JANG_OK) {
        status = dec_read(&t->dec, t->ctx, m->what, json);
        json_decref(json);
    }
    if (status == JANG_OK) {
        status = norm_add_sentencepiece(&t->norm, t->ctx, m->what, (const char *)m->map.data,
                                        m->map.n, m->collapse, m->escape);
    }
    if (status == JANG_OK && m->dummy_prefix) {
        status = pre_add_dummy_prefix(&t->pre, t->ctx, m->escape ? SPACE_MARK : " ");
    }
    return status;
}

/* The begin and end tokens that the configuration asks for; by default the former. */
static jang_status set_up_post(tok *t, const sp_model *m) {
    json_at at = {t->ctx, "tokenizer_config.json", t->config};
    bool bos, eos;
    jang_status status = json_get_bool(&bos, at, "add_bos_token", true);
    if (status == JANG_OK) {
        status = json_get_bool(&eos, at, "add_eos_token", false);
    }
    bool have_bos = m->bos >= 0 && (size_t)m->bos < m->n,
         have_eos = m->eos >= 0 && (size_t)m->eos < m->n;
    return status == JANG_OK
               ? tok_set_post(t, bos && have_bos ? m->bos : -1, eos && have_eos ? m->eos : -1)
               : status;
}

static jang_status build(tok *t, const sp_model *m, const char *config, size_t n_config) {
    t->kind = m->model_type == 2 ? TOK_BPE : TOK_UNIGRAM;
    t->bpe.byte_fallback = t->uni.byte_fallback = m->byte_fallback;
    t->bpe.fuse_unk = true;
    t->uni.unk = m->unk >= 0 && (size_t)m->unk < m->n ? m->unk : -1;
    jang_status status = add_pieces(t, m);
    if (status == JANG_OK && t->kind == TOK_BPE) {
        status = add_merges(t, m);
    }
    if (status == JANG_OK) {
        status = set_up_chains(t, m);
    }
    if (status == JANG_OK) {
        status = tok_take_config(t, config, n_config);
    }
    if (status == JANG_OK) {
        status = set_up_post(t, m);
    }
    if (status == JANG_OK) {
        const char *unk = t->uni.unk >= 0 ? vocab_text(&t->vocab, t->uni.unk, NULL) : NULL;
        status = tok_finish(t, m->what, unk);
    }
    return status;
}

jang_status tok_open_sentencepiece(tok **out, ctx_t *ctx, const char *what, const char *data,
                                   size_t n_data, const char *config, size_t n_config) {
    sp_model m = {.ctx = ctx,
                  .what = what,
                  .model_type = 1,
                  .dummy_prefix = true,
                  .collapse = true,
                  .escape = true,
                  .unk = 0,
                  .bos = 1,
                  .eos = 2};
    tok *t = NULL;
    jang_status status = read_message(&m, data, n_data);
    if (status == JANG_OK) {
        status = tok_new(&t, ctx);
    }
    if (status == JANG_OK) {
        status = build(t, &m, config, n_config);
    }
    ctx_free(ctx, m.pieces);
    if (status != JANG_OK) {
        tok_close(t);
        return status;
    }
    *out = t;
    return JANG_OK;
}
