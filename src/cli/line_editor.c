/* line_editor.c - lines typed by a person.
 *
 * libedit reads through our own read_key, so that a signal ends the reading at once: Ctrl-C drops
 * the line, a change of the window's size redraws it. */
#include "line_editor.h"

#include "interrupt.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef JANG_HAVE_LIBEDIT

#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <wchar.h>

#define HISTORY_LINES 1000

struct line_editor {
    EditLine *edit;
    History *history;
    char *history_path; /* NULL: not kept */
    const char *prompt;
};

#define TEXT_OF(x) #x
#define VERSION_TEXT(major, minor) "libedit " TEXT_OF(major) "." TEXT_OF(minor)

const char *editor_version(void) {
    return VERSION_TEXT(LIBEDIT_MAJOR, LIBEDIT_MINOR);
}

/* ---- History file ---- */

/* Makes the directories of a path, which is changed and restored on the way. */
static bool make_parents(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool ok = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* Finds the file's path and makes sure that it is there and private. NULL if there can be none. */
static char *prepare_history(void) {
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char path[PATH_MAX];
    int n;
    if (state && state[0] == '/') { /* the specification: a relative path is to be ignored */
        n = snprintf(path, sizeof path, "%s/jang/history", state);
    } else if (home && home[0] == '/') {
        n = snprintf(path, sizeof path, "%s/.local/state/jang/history", home);
    } else {
        return NULL;
    }
    if (n >= (int)sizeof path || !make_parents(path)) {
        return NULL;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return NULL;
    }
    bool ok = fchmod(fd, 0600) == 0;
    close(fd);
    return ok ? strdup(path) : NULL;
}

void editor_remember(line_editor *editor, const char *line) {
    HistEvent event;
    if (history(editor->history, &event, H_ENTER, line) >= 0 && editor->history_path) {
        history(editor->history, &event, H_SAVE, editor->history_path);
    }
}

/* ---- Reading ---- */

static char *prompt_of(EditLine *edit) {
    line_editor *editor = NULL;
    el_get(edit, EL_CLIENTDATA, &editor);
    return (char *)editor->prompt; /* libedit only reads it */
}

/* Reads one character; 1: there is one, 0: end of input, -1: interrupted or failed. */
static int read_key(EditLine *edit, wchar_t *key) {
    char bytes[MB_LEN_MAX];
    size_t n = 0;
    for (;;) {
        ssize_t got = interrupt_seen() ? -1 : read(STDIN_FILENO, bytes + n, 1);
        if (got == 0) {
            return 0;
        }
        if (got < 0) {
            if (interrupt_seen() || errno != EINTR) {
                return -1;
            }
            el_resize(edit);
            continue;
        }
        n++;
        mbstate_t state = {0};
        size_t length = mbrtowc(key, bytes, n, &state);
        if (length != (size_t)-2) { /* -2: more bytes belong to it */
            if (length == (size_t)-1) {
                *key = L'?';
            }
            return 1;
        }
        if (n == sizeof bytes) {
            n = 0;
        }
    }
}

static void on_resize(int signal_number) {
    (void)signal_number; /* it is enough that the read ends */
}

static void use_utf8_locale(void) {
    if (MB_CUR_MAX == 1 && !setlocale(LC_CTYPE, "C.UTF-8")) {
        setlocale(LC_CTYPE, "en_US.UTF-8");
    }
}

line_editor *editor_open(void) {
    use_utf8_locale();
    line_editor *editor = calloc(1, sizeof *editor);
    if (!editor) {
        cli_failed("out of memory");
        return NULL;
    }
    editor->prompt = "";
    editor->history = history_init();
    editor->edit = el_init("jang", stdin, stderr, stderr);
    if (!editor->edit || !editor->history) {
        cli_failed("cannot set up line editing on this terminal");
        editor_close(editor);
        return NULL;
    }
    HistEvent event;
    history(editor->history, &event, H_SETSIZE, HISTORY_LINES);
    history(editor->history, &event, H_SETUNIQUE, 1);
    editor->history_path = prepare_history();
    if (editor->history_path) {
        history(editor->history, &event, H_LOAD, editor->history_path);
    }
    el_set(editor->edit, EL_CLIENTDATA, editor);
    el_set(editor->edit, EL_PROMPT, prompt_of);
    el_set(editor->edit, EL_EDITOR, "emacs");
    el_set(editor->edit, EL_SIGNAL, 0);
    el_set(editor->edit, EL_HIST, history, editor->history);
    el_set(editor->edit, EL_GETCFN, read_key);
    el_source(editor->edit, NULL);
    struct sigaction action = {.sa_handler = on_resize};
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    return editor;
}

void editor_close(line_editor *editor) {
    if (!editor) {
        return;
    }
    if (editor->edit) {
        el_end(editor->edit);
    }
    if (editor->history) {
        history_end(editor->history);
    }
    free(editor->history_path);
    free(editor);
}

line_result editor_read(line_editor *editor, const char *prompt, char **line) {
    editor->prompt = prompt;
    int n = 0;
    el_resize(editor->edit); /* the window may have changed while an answer ran */
    const char *typed = el_gets(editor->edit, &n);
    if (interrupt_seen()) {
        return LINE_INTERRUPTED;
    }
    if (!typed || n <= 0) {
        return LINE_END;
    }
    size_t length = strcspn(typed, "\r\n");
    *line = strndup(typed, length);
    return *line ? LINE_TEXT : LINE_END;
}

#else /* without libedit */

const char *editor_version(void) {
    return "none (built without libedit)";
}

struct line_editor {
    char *line;
    size_t capacity;
};

line_editor *editor_open(void) {
    line_editor *editor = calloc(1, sizeof *editor);
    if (!editor) {
        cli_failed("out of memory");
    }
    return editor;
}

void editor_close(line_editor *editor) {
    if (editor) {
        free(editor->line);
        free(editor);
    }
}

line_result editor_read(line_editor *editor, const char *prompt, char **line) {
    fputs(prompt, stderr);
    fflush(stderr);
    ssize_t n = getline(&editor->line, &editor->capacity, stdin);
    if (interrupt_seen()) {
        clearerr(stdin);
        return LINE_INTERRUPTED;
    }
    if (n < 0) {
        return LINE_END;
    }
    *line = strndup(editor->line, strcspn(editor->line, "\r\n"));
    return *line ? LINE_TEXT : LINE_END;
}

void editor_remember(line_editor *editor, const char *line) {
    (void)editor, (void)line;
}

#endif
