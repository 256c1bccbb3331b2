/* msg_parser.c - takes apart what a model writes: one state machine for all formats whose calls
 * stand in the text; harmony's channels are in msg_harmony.c. */
#include "msg_parser_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- Passing on ---- */

void msg_emit(msg_parser *p, msg_part part, const char *text, size_t n_bytes) {
    if (n_bytes) {
        part = p->o.reasoning_inline ? MSG_TEXT : part;
        p->sink.text(p->sink.user, part, text, n_bytes);
    }
}

static void emit_marker(msg_parser *p, const char *marker) {
    if (p->o.reasoning_inline) {
        p->sink.text(p->sink.user, MSG_TEXT, marker, strlen(marker));
    }
}

void msg_emit_call(msg_parser *p, size_t i) {
    const tool_call *call = &p->list.calls[i];
    size_t index = p->n_calls + i;
    if (i == p->n_begun) {
        p->sink.call(p->sink.user, index, tbuf_text(&call->name), tbuf_text(&call->id));
        p->n_begun++;
        p->n_args_sent = 0;
    }
    if (i + 1 == p->n_begun && call->args.n > p->n_args_sent) {
        p->sink.args(p->sink.user, index, call->args.data + p->n_args_sent,
                     call->args.n - p->n_args_sent);
        p->n_args_sent = call->args.n;
    }
    p->answered = true;
}

void msg_end_calls(msg_parser *p) {
    p->n_calls += p->n_begun;
    p->n_begun = p->n_args_sent = 0;
    call_list_clear(&p->list);
}

size_t msg_held_back(const char *text, size_t n_bytes, const char *marker) {
    size_t n = strlen(marker) - 1;
    n = n < n_bytes ? n : n_bytes;
    while (n && memcmp(text + n_bytes - n, marker, n)) {
        n--;
    }
    return n;
}

/* ---- Code ---- */

static void code_end_run(code_state *c) {
    size_t n = c->n_run;
    c->n_run = 0;
    if (!n) {
        return;
    }
    if (c->fenced) {
        c->fenced = !(c->run_at_start && n >= c->n_fence);
    } else if (c->run_at_start && n >= 3) {
        c->fenced = true;
        c->n_fence = n;
    } else if (!c->spanned) {
        c->spanned = true;
        c->n_span = n;
    } else if (n == c->n_span) {
        c->spanned = false;
    }
}

static void code_step(code_state *c, char x) {
    if (x == '`') {
        c->run_at_start = c->n_run ? c->run_at_start : c->line_start;
        c->n_run++;
        c->line_start = false;
        return;
    }
    code_end_run(c);
    if (x == '\n') {
        c->line_start = true;
        c->spanned = false;
    } else if (x != ' ') {
        c->line_start = false;
    }
}

/* ---- Markers ---- */

typedef enum marker { NO_MARKER, MAYBE_MARKER, THINK_MARKER, STRIP_MARKER, CALL_MARKER } marker;

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Raises found to what this text at the scanner's place amounts to. */
static void try_marker(marker *found, const scanner *s, const char *text, marker kind) {
    scan_result r = *found > MAYBE_MARKER ? SCAN_BAD : scan_peek(s, text);
    if (r == SCAN_OK) {
        *found = kind;
    } else if (r == SCAN_MORE) {
        *found = MAYBE_MARKER;
    }
}

static bool has_tools(const msg_parser *p) {
    return p->o.format && p->o.tools && p->o.tools->n;
}

static void try_openings(const msg_parser *p, marker *found, const scanner *s) {
    const char *const *openings = p->o.format->openings;
    for (size_t i = 0; i < MAX_OPENINGS && openings[i]; i++) {
        bool is_last = i + 1 == MAX_OPENINGS || !openings[i + 1];
        if (!is_last || !p->o.format->bare || !p->answered) {
            try_marker(found, s, openings[i], CALL_MARKER);
        }
    }
}

/* What begins at a place of the pending text. */
static marker marker_at(const msg_parser *p, size_t at, bool final) {
    scanner s = {.text = p->pending.data, .n = p->pending.n, .at = at, .final = final};
    marker found = NO_MARKER;
    const reasoning_format *r = p->o.reasoning;
    if (r && r->open && p->fresh) {
        try_marker(&found, &s, r->open, THINK_MARKER);
    }
    for (size_t i = 0; r && i < 2 && r->strip[i]; i++) {
        try_marker(&found, &s, r->strip[i], STRIP_MARKER);
    }
    bool in_code = p->code.fenced || p->code.spanned;
    if (has_tools(p) && (!in_code || p->o.forced)) {
        try_openings(p, &found, &s);
    }
    return found;
}

/* ---- Text ---- */

/* Blanks are held back where they may turn out to stand before a marker. */
static size_t skip_blanks(msg_parser *p, size_t at) {
    while ((p->fresh || has_tools(p)) && at < p->pending.n && is_space(p->pending.data[at])) {
        code_step(&p->code, p->pending.data[at++]);
    }
    return at;
}

static void pass_text(msg_parser *p, size_t n) {
    msg_emit(p, MSG_TEXT, p->pending.data, n);
    tbuf_drop(&p->pending, n);
}

static void begin_marker(msg_parser *p, marker found, size_t n_blank) {
    if (found == CALL_MARKER) {
        p->mode = MODE_CALL;
        p->n_lead = n_blank;
        p->n_scanned = 0;
        return;
    }
    const reasoning_format *r = p->o.reasoning;
    if (found == THINK_MARKER) {
        tbuf_drop(&p->pending, n_blank + strlen(r->open));
        emit_marker(p, r->open);
        p->mode = MODE_THINK;
    } else {
        const char *text = p->pending.data + n_blank;
        bool first = r->strip[0] && !strncmp(text, r->strip[0], strlen(r->strip[0]));
        tbuf_drop(&p->pending, n_blank + strlen(r->strip[first ? 0 : 1]));
    }
    p->skip_feed = true;
}

static bool step_text(msg_parser *p, bool final) {
    size_t at = 0;
    while (at < p->pending.n) {
        size_t mark = skip_blanks(p, at);
        if (mark == p->pending.n && !final) {
            break;
        }
        if (mark < p->pending.n && p->pending.data[mark] != '`') {
            code_end_run(&p->code);
        }
        marker found = mark < p->pending.n ? marker_at(p, mark, final) : NO_MARKER;
        if (found == MAYBE_MARKER) {
            break;
        }
        if (found != NO_MARKER) {
            pass_text(p, at);
            begin_marker(p, found, mark - at);
            return true;
        }
        if (mark < p->pending.n) {
            p->fresh = p->fresh && is_space(p->pending.data[mark]);
            p->answered |= !is_space(p->pending.data[mark]);
            code_step(&p->code, p->pending.data[mark++]);
        }
        at = mark;
    }
    if (final && p->fresh && p->n_calls) {
        tbuf_clear(&p->pending); /* blanks after the last call */
    }
    pass_text(p, at < p->pending.n ? at : p->pending.n);
    return false;
}

/* ---- Reasoning ---- */

/* Bytes at the end that may belong to the closing marker, and blanks before it. */
static size_t think_held(const msg_parser *p) {
    size_t n = msg_held_back(p->pending.data, p->pending.n, p->o.reasoning->close);
    while (n < p->pending.n && is_space(p->pending.data[p->pending.n - n - 1])) {
        n++;
    }
    return n;
}

static bool step_think(msg_parser *p, bool final) {
    const reasoning_format *r = p->o.reasoning;
    const char *close =
        p->pending.n ? memmem(p->pending.data, p->pending.n, r->close, strlen(r->close)) : NULL;
    size_t n = close ? (size_t)(close - p->pending.data) : p->pending.n;
    size_t n_text = n;
    if (close || final) {
        while (n_text && is_space(p->pending.data[n_text - 1])) {
            n_text--;
        }
    } else {
        n_text -= think_held(p);
    }
    msg_emit(p, MSG_REASONING, p->pending.data, n_text);
    if (!close) {
        tbuf_drop(&p->pending, final ? n : n_text);
        return false;
    }
    if (p->o.reasoning_inline) {
        msg_emit(p, MSG_TEXT, p->pending.data + n_text, n - n_text);
    }
    emit_marker(p, r->close);
    tbuf_drop(&p->pending, n + strlen(r->close));
    p->mode = MODE_TEXT;
    p->fresh = p->skip_feed = true;
    p->skip_feed = !p->o.reasoning_inline;
    return true;
}

/* ---- Calls ---- */

static bool all_known(const msg_parser *p) {
    for (size_t i = 0; i < p->list.n; i++) {
        const tbuf *name = &p->list.calls[i].name;
        if (!tool_find(p->o.tools, tbuf_text(name), name->n)) {
            return false;
        }
    }
    return p->list.n > 0;
}

/* Passes on what is known of calls that are not complete. */
static void pass_progress(msg_parser *p) {
    for (size_t i = 0; i < p->list.n; i++) {
        const tbuf *name = &p->list.calls[i].name;
        if (!name->n || !tool_find(p->o.tools, name->data, name->n)) {
            return;
        }
        msg_emit_call(p, i);
    }
}

static void take_calls(msg_parser *p, size_t n_bytes) {
    for (size_t i = 0; i < p->list.n; i++) {
        msg_emit_call(p, i);
    }
    msg_end_calls(p);
    tbuf_drop(&p->pending, n_bytes);
    p->mode = MODE_TEXT;
    p->fresh = true;
}

/* It was no call: the blanks and the first character of the marker are text. */
static void release_marker(msg_parser *p) {
    size_t n = p->n_lead + 1;
    code_step(&p->code, p->pending.data[p->n_lead]);
    call_list_clear(&p->list);
    p->mode = MODE_TEXT;
    p->fresh = false;
    pass_text(p, n);
}

static bool step_call(msg_parser *p, bool final) {
    /* a long call is read again only once it has grown by a part of its size */
    if (!final && (p->pending.n - p->n_scanned) * 128 < p->n_scanned) {
        return false;
    }
    p->n_scanned = p->pending.n;
    scanner s = {.text = p->pending.data, .n = p->pending.n, .at = p->n_lead, .final = final};
    call_list_clear(&p->list);
    scan_result r = p->o.format->scan(p->o.format, &s, p->o.tools, &p->list);
    p->failed |= p->list.failed;
    for (size_t i = 0; i < p->list.n; i++) {
        p->failed |= p->list.calls[i].args.failed || p->list.calls[i].name.failed;
    }
    if (p->failed) {
        return false;
    }
    if (r == SCAN_OK && all_known(p)) {
        take_calls(p, s.at);
        return true;
    }
    if (r == SCAN_MORE) {
        if (p->o.forced) {
            pass_progress(p);
        }
        return false;
    }
    if (p->n_begun) { /* passed on already, and cut off here */
        pass_progress(p);
        msg_end_calls(p);
        tbuf_clear(&p->pending);
        p->mode = MODE_TEXT;
        return false;
    }
    release_marker(p);
    return true;
}

/* ---- The machine ---- */

static bool drop_feeds(msg_parser *p) {
    size_t n = p->pending.n ? strspn(p->pending.data, "\r\n") : 0;
    tbuf_drop(&p->pending, n);
    p->skip_feed = p->pending.n == 0;
    return p->pending.n > 0;
}

static void run(msg_parser *p, bool final) {
    bool going = true;
    while (going && !p->failed && p->pending.n) {
        if (p->skip_feed && !drop_feeds(p)) {
            break;
        }
        switch (p->mode) {
        case MODE_TEXT:
            going = step_text(p, final);
            break;
        case MODE_THINK:
            going = step_think(p, final);
            break;
        case MODE_CALL:
            going = step_call(p, final);
            break;
        default:
            going = msg_harmony_step(p, final);
        }
        p->failed |= p->pending.failed;
    }
}

msg_parser *msg_parser_new(const msg_options *options, const msg_sink *sink) {
    msg_parser *p = calloc(1, sizeof *p);
    if (!p) {
        return NULL;
    }
    p->o = *options;
    p->sink = *sink;
    p->fresh = p->code.line_start = true;
    const reasoning_format *r = options->reasoning;
    bool channels = (r && !r->open && !r->close) || (options->format && !options->format->scan);
    if (channels) {
        p->mode = MODE_HEADER;
    } else if (r && (options->reasoning_open || r->implied)) {
        p->mode = MODE_THINK;
        p->skip_feed = !options->reasoning_inline;
    }
    return p;
}

void msg_parser_free(msg_parser *p) {
    if (p) {
        tbuf_free(&p->pending);
        tbuf_free(&p->recipient);
        call_list_free(&p->list);
        free(p);
    }
}

void msg_parser_feed(msg_parser *p, const char *text, size_t n_bytes) {
    tbuf_add(&p->pending, text, n_bytes);
    p->failed |= p->pending.failed;
    run(p, false);
}

void msg_parser_finish(msg_parser *p) {
    run(p, true);
}

bool msg_parser_failed(const msg_parser *p) {
    return p->failed;
}

bool msg_parser_in_reasoning(const msg_parser *p) {
    return p->mode == MODE_THINK || (p->mode == MODE_BODY && p->body == BODY_REASONING);
}
