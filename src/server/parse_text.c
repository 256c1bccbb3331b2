/* parse_text.c - jang parse: a text through the server's own parsers. */
#include "parse_text.h"

#include "message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXED_SEED 1 /* so that the ids are the same each time */

static const char *format_name_at(size_t i) {
    const tool_format *f = tool_format_at(i);
    return f ? f->name : NULL;
}

static const char *reasoning_name_at(size_t i) {
    const reasoning_format *r = reasoning_at(i);
    return r ? r->name : NULL;
}

static void list_names(tbuf *out, const char *(*name_at)(size_t)) {
    for (size_t i = 0; name_at(i); i++) {
        tbuf_printf(out, "%s%s", i ? ", " : "", name_at(i));
    }
}

static void unknown_name(char *error, size_t n, const char *option, const char *name,
                         const char *(*name_at)(size_t)) {
    tbuf names = {0};
    list_names(&names, name_at);
    snprintf(error, n, "--%s %s: must be one of %s", option, name, tbuf_text(&names));
    tbuf_free(&names);
}

static bool find_formats(msg_options *o, const parse_job *job, char *error, size_t n) {
    bool no_format = !job->format || !strcmp(job->format, "none");
    bool no_reasoning = !job->reasoning || !strcmp(job->reasoning, "none");
    o->format = no_format ? NULL : tool_format_find(job->format);
    o->reasoning = no_reasoning ? NULL : reasoning_find(job->reasoning);
    if (!no_format && !o->format) {
        unknown_name(error, n, "format", job->format, format_name_at);
        return false;
    }
    if (!no_reasoning && !o->reasoning) {
        unknown_name(error, n, "reasoning", job->reasoning, reasoning_name_at);
        return false;
    }
    return true;
}

static bool feed_all(const parse_job *job, const msg_options *o, chat_message *m) {
    msg_sink sink = message_sink(m);
    msg_parser *p = msg_parser_new(o, &sink);
    if (!p) {
        return false;
    }
    size_t chunk = job->chunk ? job->chunk : job->n_text;
    for (size_t at = 0; at < job->n_text; at += chunk) {
        size_t n = job->n_text - at;
        msg_parser_feed(p, job->text + at, n < chunk ? n : chunk);
    }
    msg_parser_finish(p);
    bool ok = !msg_parser_failed(p) && !message_failed(m);
    msg_parser_free(p);
    return ok;
}

static char *run_parser(const parse_job *job, msg_options *o) {
    uint64_t random = FIXED_SEED;
    chat_message m = {.format = o->format, .random = &random};
    tbuf out = {0};
    if (feed_all(job, o, &m)) {
        jw w = jw_start(&out);
        jw_open(&w, NULL, '{');
        message_write(&m, &w);
        jw_close(&w);
    }
    message_free(&m);
    if (out.failed) {
        tbuf_free(&out);
    }
    return out.data;
}

char *parse_text(const parse_job *job, char *error, size_t error_bytes) {
    msg_options o = {.reasoning_open = job->open, .forced = job->forced};
    if (!find_formats(&o, job, error, error_bytes)) {
        return NULL;
    }
    tool_set tools = {0};
    json_error_t where;
    json_t *json =
        job->tools_json ? json_loadb(job->tools_json, job->n_tools_json, 0, &where) : json_array();
    char *result = NULL;
    if (!json || !json_is_array(json)) {
        snprintf(error, error_bytes, "the tools are not a JSON array%s%s", json ? "" : ": ",
                 json ? "" : where.text);
    } else if (tool_set_read(&tools, json)) {
        o.tools = &tools;
        result = run_parser(job, &o);
        snprintf(error, error_bytes, "out of memory");
    }
    tool_set_free(&tools);
    json_decref(json);
    return result;
}
