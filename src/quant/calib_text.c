/* calib_text.c - reading calibration text and cutting it into sequences. */
#include "quant/calib_text.h"

#include "base/file.h"
#include "template/template.h"

#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)
#define OUTPUT_MAX ((size_t)16 << 20)

typedef struct reader {
    ctx_t *ctx;
    checkpoint *model;
    tok *tok;
    tmpl *chat; /* made when the first messages come */
    tok_ids ids;
} reader;

static jang_status open_tok(reader *r) {
    const char *data, *config;
    size_t n, n_config;
    jang_status status = checkpoint_text(&config, &n_config, r->model, "tokenizer_config.json");
    for (size_t i = 0; i < tok_n_files && status == JANG_OK; i++) {
        const tok_file *file = &tok_files[i];
        status = checkpoint_text(&data, &n, r->model, file->name);
        if (status == JANG_OK && data) {
            return file->open(&r->tok, r->ctx, file->name, data, n, config, n_config);
        }
    }
    return status == JANG_OK
               ? ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED, "%s: no tokenizer, which calibration needs",
                          checkpoint_path(r->model))
               : status;
}

static jang_status add_text(reader *r, const char *text, size_t n, bool special) {
    return tok_encode(r->tok, &r->ids, text, n, special ? TOK_ADD_SPECIAL : 0);
}

/* ---- JSON lines ---- */

static jang_status open_template(reader *r) {
    const char *text;
    size_t n;
    jang_status status = checkpoint_chat_template(&text, &n, r->model);
    if (status == JANG_OK && !text) {
        return ctx_fail(r->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: no chat template for the calibration file's messages",
                        checkpoint_path(r->model));
    }
    return status == JANG_OK ? tmpl_compile(&r->chat, r->ctx, "chat template", text, n) : status;
}

/* bos_token and eos_token, which templates may write. */
static int add_specials(json_t *context, const json_t *config) {
    static const char *const names[] = {"bos_token", "eos_token"};
    int failed = 0;
    for (size_t i = 0; i < 2; i++) {
        json_t *value = json_object_get(config, names[i]);
        value = json_is_object(value) ? json_object_get(value, "content") : value;
        failed |= json_is_string(value) ? json_object_set(context, names[i], value) : 0;
    }
    return failed;
}

static jang_status add_messages(reader *r, json_t *messages) {
    jang_status status = r->chat ? JANG_OK : open_template(r);
    if (status != JANG_OK) {
        return status;
    }
    json_t *context = json_pack("{s:O, s:b}", "messages", messages, "add_generation_prompt", 0);
    buf text;
    buf_init(&text, r->ctx, OUTPUT_MAX);
    if (!context || add_specials(context, tok_config(r->tok)) != 0) {
        status = ctx_fail_memory(r->ctx, 64);
    }
    if (status == JANG_OK) {
        status = tmpl_render(r->chat, &text, context);
    }
    if (status == JANG_OK) {
        status = add_text(r, text.data, text.size, false);
    }
    buf_free(&text);
    json_decref(context);
    return status;
}

static jang_status add_line(reader *r, const char *what, const char *line, size_t n) {
    json_t *object;
    jang_status status = json_parse(&object, r->ctx, what, line, n);
    if (status != JANG_OK) {
        return status;
    }
    json_t *messages = json_object_get(object, "messages"), *text = json_object_get(object, "text");
    if (json_is_array(messages)) {
        status = add_messages(r, messages);
    } else if (json_is_string(text)) {
        status = add_text(r, json_string_value(text), json_string_length(text), false);
    } else {
        status = ctx_fail(r->ctx, JANG_ERR_FORMAT,
                          "%s: expected an object with \"messages\" or \"text\"", what);
    }
    json_decref(object);
    return status;
}

static jang_status add_lines(reader *r, const char *path, const char *data, size_t n) {
    size_t number = 1;
    for (size_t at = 0; at < n; number++) {
        const char *end = memchr(data + at, '\n', n - at);
        size_t length = end ? (size_t)(end - (data + at)) : n - at;
        bool blank = strspn(data + at, " \t\r") >= length;
        if (!blank) {
            buf what;
            buf_init(&what, r->ctx, 4096);
            buf_printf(&what, "%s: line %zu", path, number);
            jang_status status = add_line(r, what.data, data + at, length);
            buf_free(&what);
            if (status != JANG_OK) {
                return status;
            }
        }
        at += length + 1;
    }
    return JANG_OK;
}

/* ---- Sequences ---- */

static jang_status add_builtin(reader *r) {
    static const char divider[] = "----\n";
    jang_status status = JANG_OK;
    for (const char *at = (const char *)calib_builtin; *at && status == JANG_OK;) {
        const char *end = strstr(at, divider);
        size_t n = end ? (size_t)(end - at) : strlen(at);
        status = add_text(r, at, n, true);
        at += n + (end ? sizeof divider - 1 : 0);
    }
    return status;
}

static jang_status read_all(reader *r, const char *path) {
    if (!path) {
        return add_builtin(r);
    }
    char *data;
    size_t n;
    jang_status status = file_read(&data, &n, r->ctx, path, MAX_TEXT_BYTES);
    if (status == JANG_OK) {
        status = path_has_suffix(path, ".jsonl") ? add_lines(r, path, data, n)
                                                 : add_text(r, data, n, true);
        ctx_free(r->ctx, data);
    }
    return status;
}

/* Keeps whole sequences, spread evenly over the text where there are more than wanted. */
static jang_status cut(reader *r, const char *path, size_t n_tokens) {
    size_t seq = CALIB_SEQ_TOKENS, have = r->ids.n / seq, want = n_tokens / seq;
    if (have == 0) {
        return ctx_fail(r->ctx, JANG_ERR_ARGUMENT,
                        "%s: %zu tokens of text are too few to calibrate on; %zu are the least",
                        path ? path : "built-in text", r->ids.n, seq);
    }
    want = want < 1 ? 1 : want > have ? have : want;
    for (size_t i = 0; i < want; i++) {
        memmove(r->ids.ids + i * seq, r->ids.ids + i * have / want * seq, seq * sizeof(int32_t));
    }
    r->ids.n = want * seq;
    return JANG_OK;
}

jang_status calib_tokens(tok_ids *out, ctx_t *ctx, checkpoint *model, const char *path,
                         size_t n_tokens) {
    reader r = {.ctx = ctx, .model = model};
    jang_status status = open_tok(&r);
    if (status == JANG_OK) {
        status = read_all(&r, path);
    }
    if (status == JANG_OK) {
        status = cut(&r, path, n_tokens);
    }
    tok_close(r.tok);
    tmpl_free(r.chat);
    if (status != JANG_OK) {
        tok_ids_free(ctx, &r.ids);
        return status;
    }
    *out = r.ids;
    return JANG_OK;
}
