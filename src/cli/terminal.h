/* terminal.h - what the program prints: error lines, figures for people, text from models. */
#ifndef JANG_CLI_TERMINAL_H
#define JANG_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Prints "jang: MESSAGE" to stderr as one line and returns CLI_FAILED. */
__attribute__((format(printf, 1, 2))) int cli_failed(const char *format, ...);

/* Prints "jang: COMMAND: MESSAGE" to stderr as one line and returns CLI_MISUSED. command may be
 * NULL. */
__attribute__((format(printf, 2, 3))) int cli_misused(const char *command, const char *format, ...);

bool is_terminal(FILE *stream);

/* Columns of the terminal behind a stream; 80 if that is not known. */
int terminal_width(FILE *stream);

/* Prints text that may come from a model or file. To a terminal it goes with every control
 * character but line feed and tab made visible (ESC as ^[), so that it can print but not steer;
 * elsewhere the bytes go as they are. text must not end within a character. */
void print_text(FILE *to, const char *text, size_t n_bytes);

/* "82.3 MB", powers of ten. */
typedef struct byte_text {
    char text[16];
} byte_text;
byte_text human_bytes(double n_bytes);

/* Seconds on a clock that only goes forward. */
double now_seconds(void);

#endif
