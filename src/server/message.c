/* message.c - an assistant's message, put together from the parts a parser passes on. */
#include "message.h"

#include <string.h>

/* ---- Ids ---- */

static uint64_t draw(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void random_letters(tbuf *out, uint64_t *random, int n) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (int i = 0; i < n; i++) {
        tbuf_putc(out, letters[draw(random) % (sizeof letters - 1)]);
    }
}

void tool_make_id(tbuf *out, const tool_format *format, uint64_t *random) {
    int n = format ? format->id_length : 0;
    if (!n) {
        tbuf_puts(out, "call_");
    }
    random_letters(out, random, n ? n : 24);
}

/* ---- Collecting ---- */

static void take_text(void *user, msg_part part, const char *text, size_t n_bytes) {
    chat_message *m = user;
    tbuf_add(part == MSG_TEXT ? &m->text : &m->reasoning, text, n_bytes);
}

static void take_call(void *user, size_t index, const char *name, const char *id) {
    (void)index;
    chat_message *m = user;
    tool_call *call = call_add(&m->calls);
    if (call) {
        tbuf_puts(&call->name, name);
        tbuf_puts(&call->id, id);
        if (!*id) {
            tool_make_id(&call->id, m->format, m->random);
        }
    }
}

static void take_args(void *user, size_t index, const char *json, size_t n_bytes) {
    chat_message *m = user;
    if (index < m->calls.n) {
        tbuf_add(&m->calls.calls[index].args, json, n_bytes);
    }
}

msg_sink message_sink(chat_message *m) {
    return (msg_sink){.user = m, .text = take_text, .call = take_call, .args = take_args};
}

void message_free(chat_message *m) {
    tbuf_free(&m->text);
    tbuf_free(&m->reasoning);
    call_list_free(&m->calls);
}

bool message_failed(const chat_message *m) {
    return m->text.failed || m->reasoning.failed || m->calls.failed;
}

void message_write(const chat_message *m, jw *w) {
    jw_text(w, "role", "assistant");
    if (m->text.n || !m->calls.n) {
        jw_bytes(w, "content", tbuf_text(&m->text), m->text.n);
    } else {
        jw_null(w, "content");
    }
    if (m->reasoning.n) {
        jw_bytes(w, "reasoning_content", m->reasoning.data, m->reasoning.n);
    }
    jw_null(w, "refusal");
    if (!m->calls.n) {
        return;
    }
    jw_open(w, "tool_calls", '[');
    for (size_t i = 0; i < m->calls.n; i++) {
        const tool_call *call = &m->calls.calls[i];
        jw_open(w, NULL, '{');
        jw_text(w, "id", tbuf_text(&call->id));
        jw_text(w, "type", "function");
        jw_open(w, "function", '{');
        jw_bytes(w, "name", tbuf_text(&call->name), call->name.n);
        jw_bytes(w, "arguments", tbuf_text(&call->args), call->args.n);
        jw_close(w);
        jw_close(w);
    }
    jw_close(w);
}
