/* msg_harmony.c - gpt-oss's channels: <|channel|>NAME<|message|>TEXT<|end|>, again and again.
 *
 * Channel analysis is reasoning, final is the answer, commentary is text for the user unless its
 * header names a tool as recipient (to=functions.NAME); then its text is the arguments. */
#include "msg_parser_impl.h"

#include <string.h>

#define HEADER_MAX 512

static const char message_mark[] = "<|message|>";
static const char *const ends[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
#define N_ENDS (sizeof ends / sizeof ends[0])

/* The first place of a mark in the pending text, which may hold any bytes. */
static const char *find_mark(const msg_parser *p, const char *mark) {
    return p->pending.n ? memmem(p->pending.data, p->pending.n, mark, strlen(mark)) : NULL;
}

/* Whether a text can begin a header: one of its words, or part of one. */
static scan_result looks_like_header(const msg_parser *p, bool final) {
    static const char *const words[] = {"<|start|>", "<|channel|>", " to=", "to=", "assistant"};
    scanner s = {.text = p->pending.data, .n = p->pending.n, .final = final};
    scan_result best = SCAN_BAD;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        scan_result r = scan_peek(&s, words[i]);
        best = r == SCAN_OK || (r == SCAN_MORE && best == SCAN_BAD) ? r : best;
    }
    return best;
}

/* The word behind a mark in a header. */
static const char *word_after(const char *header, size_t n, const char *mark, size_t *n_word) {
    const char *at = memmem(header, n, mark, strlen(mark));
    if (!at) {
        return NULL;
    }
    at += strlen(mark);
    size_t n_left = (size_t)(header + n - at), i = 0;
    while (i < n_left && at[i] != '<' && at[i] != ' ' && at[i] != '\n') {
        i++;
    }
    *n_word = i;
    return at;
}

static void read_header(msg_parser *p, size_t n_header) {
    static const char prefix[] = "functions.";
    const char *header = p->pending.data;
    size_t n_to = 0, n_channel = 0;
    const char *to = word_after(header, n_header, "to=", &n_to);
    const char *channel = word_after(header, n_header, "<|channel|>", &n_channel);
    p->body =
        channel && n_channel == 8 && !memcmp(channel, "analysis", 8) ? BODY_REASONING : BODY_TEXT;
    if (to && n_to > sizeof prefix - 1 && !memcmp(to, prefix, sizeof prefix - 1)) {
        to += sizeof prefix - 1;
        n_to -= sizeof prefix - 1;
        if (p->o.format && tool_find(p->o.tools, to, n_to)) {
            p->body = BODY_CALL;
            tbuf_clear(&p->recipient);
            tbuf_add(&p->recipient, to, n_to);
        }
    }
    tbuf_drop(&p->pending, n_header + strlen(message_mark));
    p->mode = MODE_BODY;
}

static bool step_header(msg_parser *p, bool final) {
    size_t n_blank = strspn(p->pending.data, "\n");
    tbuf_drop(&p->pending, n_blank);
    const char *mark = find_mark(p, message_mark);
    scan_result r = p->pending.n ? looks_like_header(p, final) : SCAN_MORE;
    if (mark && r == SCAN_OK && mark - p->pending.data < HEADER_MAX) {
        read_header(p, (size_t)(mark - p->pending.data));
        return true;
    }
    if (r == SCAN_BAD || final || p->pending.n > HEADER_MAX + sizeof message_mark) {
        p->body = BODY_TEXT; /* no header: plain text */
        p->mode = MODE_BODY;
        bool is_rest = final && r != SCAN_BAD;
        if (is_rest) { /* cut off in a header */
            tbuf_clear(&p->pending);
        } else if (r != SCAN_BAD) { /* its first mark is text too, and must not end the body */
            msg_emit(p, MSG_TEXT, p->pending.data, 1);
            tbuf_drop(&p->pending, 1);
        }
        return p->pending.n > 0;
    }
    return false;
}

/* Where the body ends; n_mark is the length of what ends it and is dropped. */
static const char *find_end(const msg_parser *p, size_t *n_mark) {
    const char *first = NULL;
    for (size_t i = 0; i < N_ENDS; i++) {
        const char *at = find_mark(p, ends[i]);
        if (at && (!first || at < first)) {
            first = at;
            *n_mark = i == N_ENDS - 1 ? 0 : strlen(ends[i]);
        }
    }
    return first;
}

static bool read_arguments(msg_parser *p, size_t n, bool complete) {
    call_list_clear(&p->list);
    tool_call *call = call_add(&p->list);
    if (!call) {
        p->failed = true;
        return false;
    }
    tbuf_add(&call->name, p->recipient.data, p->recipient.n);
    scanner s = {.text = p->pending.data, .n = n, .final = complete};
    scan_space(&s);
    bool is_object = s.at < n && s.text[s.at] == '{';
    scan_result r = is_object ? scan_json(&s, &call->args) : scan_end(&s);
    if (r == SCAN_BAD || (r == SCAN_MORE && complete)) {
        return false;
    }
    if (r == SCAN_OK || (p->o.forced && is_object)) {
        msg_emit_call(p, 0);
    }
    return r == SCAN_OK;
}

/* Arguments are kept until they are whole, or passed on as they come where a grammar makes them. */
static void step_arguments(msg_parser *p, size_t n, bool complete) {
    if (!complete && !p->o.forced) {
        return;
    }
    bool ok = read_arguments(p, n, complete);
    if (complete) {
        if (!ok && !p->n_begun) {
            msg_emit(p, MSG_TEXT, p->pending.data, n);
        }
        msg_end_calls(p);
    }
}

static size_t held_back(const msg_parser *p) {
    size_t most = 0;
    for (size_t i = 0; i < N_ENDS; i++) {
        size_t n = msg_held_back(p->pending.data, p->pending.n, ends[i]);
        most = n > most ? n : most;
    }
    return most;
}

static bool step_body(msg_parser *p, bool final) {
    size_t n_mark = 0;
    const char *end = find_end(p, &n_mark);
    size_t n = end ? (size_t)(end - p->pending.data) : p->pending.n - (final ? 0 : held_back(p));
    bool complete = end || final;
    if (p->body == BODY_CALL) {
        step_arguments(p, n, complete);
    } else {
        msg_emit(p, p->body == BODY_TEXT ? MSG_TEXT : MSG_REASONING, p->pending.data, n);
    }
    if (complete || p->body != BODY_CALL) {
        tbuf_drop(&p->pending, n + (end ? n_mark : 0));
    }
    if (end) {
        p->mode = MODE_HEADER;
        p->fresh = true;
    }
    return end != NULL;
}

bool msg_harmony_step(msg_parser *p, bool final) {
    return p->mode == MODE_HEADER ? step_header(p, final) : step_body(p, final);
}
