/* line_editor.h - lines typed by a person: libedit with a history file, or plain reading where the
 * program was built without it. */
#ifndef JANG_CLI_LINE_EDITOR_H
#define JANG_CLI_LINE_EDITOR_H

#include <stddef.h>

typedef struct line_editor line_editor;

typedef enum line_result {
    LINE_TEXT,        /* a line was typed */
    LINE_INTERRUPTED, /* Ctrl-C: what was typed is gone */
    LINE_END,         /* Ctrl-D on an empty line, or the terminal is gone */
} line_result;

/* Opens the editor on standard input; prompts go to stderr. The history lies in the user's state
 * directory ($XDG_STATE_HOME or ~/.local/state)/jang/history, readable by its owner only; a history
 * that cannot be kept is no error. Prints why it failed. Expects interrupt_catch_all. */
line_editor *editor_open(void);
void editor_close(line_editor *editor);

/* Reads a line without its line feed; *line is freed with free and set for LINE_TEXT only. */
line_result editor_read(line_editor *editor, const char *prompt, char **line);

/* Names the library that edits lines: "libedit 2.11", "none". */
const char *editor_version(void);

/* Keeps a line in the history. */
void editor_remember(line_editor *editor, const char *line);

#endif
