/* chat_loop.c - the interactive chat.
 *
 * Ctrl-C during an answer stops the answer; at the prompt it clears the line, and twice in a row it
 * leaves. Answers go to standard output, everything else to stderr. */
#include "chat_loop.h"

#include "command.h"
#include "interrupt.h"
#include "line_editor.h"
#include "open_model.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

typedef enum chat_next { CHAT_ON, CHAT_QUIT } chat_next;

typedef struct chat_command {
    const char *name, *value, *help;
    chat_next (*run)(conversation *c, const char *value);
} chat_command;

/* ---- Slash commands ---- */

static chat_next run_help(conversation *c, const char *value);

static chat_next run_reset(conversation *c, const char *value) {
    (void)value;
    conversation_reset(c);
    fputs("The conversation starts anew.\n", stderr);
    return CHAT_ON;
}

static chat_next run_system(conversation *c, const char *value) {
    if (c->raw) {
        fputs("A raw prompt has no system message.\n", stderr);
    } else if (*value) {
        if (conversation_set_system(c, value)) {
            fputs("The system message is set.\n", stderr);
        }
    } else {
        const char *text = conversation_system(c);
        text = text ? text : "There is no system message; /system TEXT sets one.";
        print_text(stderr, text, strlen(text));
        fputc('\n', stderr);
    }
    return CHAT_ON;
}

static chat_next run_stats(conversation *c, const char *value) {
    (void)value;
    print_model_line(c->model);
    if (c->stats.n_prompt) {
        conversation_print_stats(c, stderr);
    }
    fprintf(stderr, "context: %zu tokens in the cache; the model was made for %d\n",
            jang_session_length(c->session), (int)jang_model_get_info(c->model)->n_context);
    return CHAT_ON;
}

static chat_next run_quit(conversation *c, const char *value) {
    (void)c, (void)value;
    return CHAT_QUIT;
}

static const chat_command chat_commands[] = {
    {"/help", "", "this list", run_help},
    {"/reset", "", "forget the conversation, keep the system message", run_reset},
    {"/system", " TEXT", "set the system message; without TEXT show it", run_system},
    {"/stats", "", "speed of the last answer, model, context in use", run_stats},
    {"/quit", "", "leave; Ctrl-D as well, or Ctrl-C twice", run_quit},
};
#define N_CHAT_COMMANDS (sizeof chat_commands / sizeof chat_commands[0])

static chat_next run_help(conversation *c, const char *value) {
    (void)c, (void)value;
    for (size_t i = 0; i < N_CHAT_COMMANDS; i++) {
        char left[32];
        snprintf(left, sizeof left, "%s%s", chat_commands[i].name, chat_commands[i].value);
        fprintf(stderr, "  %-14s %s\n", left, chat_commands[i].help);
    }
    fputs("Ctrl-C stops an answer. A line that ends in \\ goes on in the next; a line that begins\n"
          "with // is sent with one / less.\n",
          stderr);
    return CHAT_ON;
}

static chat_next run_slash_command(conversation *c, const char *line) {
    size_t n_name = strcspn(line, " \t");
    for (size_t i = 0; i < N_CHAT_COMMANDS; i++) {
        const char *name = chat_commands[i].name;
        if (strlen(name) == n_name && !memcmp(name, line, n_name)) {
            const char *value = line + n_name;
            return chat_commands[i].run(c, value + strspn(value, " \t"));
        }
    }
    char message[256];
    snprintf(message, sizeof message, "Unknown command %.*s; /help lists them.\n",
             (int)(n_name < 64 ? n_name : 64), line);
    print_text(stderr, message, strlen(message));
    return CHAT_ON;
}

/* ---- Loop ---- */

/* Appends next to *text with a line feed between; takes both over. */
static bool join_lines(char **text, char *next) {
    size_t n_text = strlen(*text), n_next = strlen(next);
    char *joined = realloc(*text, n_text + n_next + 2);
    if (joined) {
        joined[n_text] = '\n';
        memcpy(joined + n_text + 1, next, n_next + 1);
        *text = joined;
    }
    free(next);
    return joined != NULL;
}

/* Reads a line and those it goes on in. */
static line_result read_message(line_editor *editor, char **text) {
    line_result result = editor_read(editor, "> ", text);
    if (result != LINE_TEXT) {
        return result;
    }
    size_t n;
    while ((n = strlen(*text)) > 0 && (*text)[n - 1] == '\\') {
        char *next = NULL;
        (*text)[n - 1] = 0;
        result = editor_read(editor, ". ", &next);
        if (result != LINE_TEXT || !join_lines(text, next)) {
            free(*text);
            *text = NULL;
            return result == LINE_TEXT ? LINE_END : result;
        }
    }
    return LINE_TEXT;
}

static chat_next handle_message(conversation *c, const char *text) {
    if (text[0] == '/' && text[1] != '/') {
        return run_slash_command(c, text);
    }
    const char *content = text[0] == '/' ? text + 1 : text;
    bool ok = conversation_answer(c, content, strlen(content));
    if (ok) {
        fputs("\n", c->out);
        fflush(c->out);
    }
    if (ok && c->stats.finish == JANG_FINISH_LENGTH) {
        fputs("(The answer is cut: it reached the limit of tokens.)\n", stderr);
    }
    interrupt_clear();
    return CHAT_ON;
}

int chat_run(conversation *c) {
    interrupt_catch_all();
    interrupt_clear();
    line_editor *editor = editor_open();
    if (!editor) {
        return CLI_FAILED;
    }
    fputs("Type a message; /help lists the commands, /quit leaves.\n", stderr);
    int n_interrupts = 0;
    for (chat_next next = CHAT_ON; next == CHAT_ON && !interrupt_is_final();) {
        char *text = NULL;
        line_result result = read_message(editor, &text);
        if (result == LINE_END) {
            fputs("\n", stderr);
            break;
        }
        if (result == LINE_INTERRUPTED) {
            interrupt_clear();
            if (++n_interrupts == 2 || interrupt_is_final()) {
                fputs("^C\n", stderr);
                break;
            }
            fputs("^C (once more, or Ctrl-D, leaves)\n", stderr);
            continue;
        }
        n_interrupts = 0;
        if (text[strspn(text, " \t\n")]) {
            editor_remember(editor, text);
            next = handle_message(c, text);
        }
        free(text);
    }
    editor_close(editor);
    return interrupt_is_final() ? CLI_FAILED : CLI_DONE;
}
