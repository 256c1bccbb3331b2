/* terminal.c - printing: error lines, sizes, and text from models made harmless for a terminal. */
#include "terminal.h"

#include "cli_utf8.h"
#include "command.h"

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

/* ---- Text from outside ---- */

/* Prints the character at text, made visible if it is a control character; returns its bytes. */
static size_t print_visible(FILE *to, const char *text, size_t n_bytes) {
    unsigned char c = (unsigned char)text[0];
    if (c < 0x20 || c == 0x7f) {
        fputc('^', to);
        fputc(c ^ 0x40, to);
        return 1;
    }
    size_t n = cli_utf8_bytes(text, n_bytes);
    bool is_c1 = n == 2 && c == 0xc2 && (unsigned char)text[1] < 0xa0;
    if (n == 0 || is_c1) {
        fputs("\xef\xbf\xbd", to); /* U+FFFD */
        return n ? n : 1;
    }
    fwrite(text, 1, n, to);
    return n;
}

static void print_harmless(FILE *to, const char *text, size_t n_bytes, bool one_line) {
    for (size_t at = 0; at < n_bytes;) {
        if (!one_line && (text[at] == '\n' || text[at] == '\t')) {
            fputc(text[at++], to);
        } else {
            at += print_visible(to, text + at, n_bytes - at);
        }
    }
}

void print_text(FILE *to, const char *text, size_t n_bytes) {
    if (is_terminal(to)) {
        print_harmless(to, text, n_bytes, false);
    } else {
        fwrite(text, 1, n_bytes, to);
    }
}

/* ---- Errors ---- */

__attribute__((format(printf, 2, 0))) static void print_error(const char *prefix,
                                                              const char *format, va_list args) {
    char line[LINE_BYTES];
    vsnprintf(line, sizeof line, format, args);
    fflush(stdout);
    fprintf(stderr, "jang: %s%s", prefix ? prefix : "", prefix ? ": " : "");
    print_harmless(stderr, line, strlen(line), true);
    fputc('\n', stderr);
}

int cli_failed(const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_error(NULL, format, args);
    va_end(args);
    return CLI_FAILED;
}

int cli_misused(const char *command, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_error(command, format, args);
    va_end(args);
    return CLI_MISUSED;
}

/* ---- Terminal and figures ---- */

bool is_terminal(FILE *stream) {
    return isatty(fileno(stream));
}

int terminal_width(FILE *stream) {
    struct winsize size;
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    return 80;
}

byte_text human_bytes(double n_bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    size_t unit = 0;
    while (n_bytes >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        n_bytes /= 1000;
        unit++;
    }
    int decimals = unit == 0 || n_bytes >= 99.95 ? 0 : n_bytes >= 9.995 ? 1 : 2;
    byte_text out;
    snprintf(out.text, sizeof out.text, "%.*f %s", decimals, n_bytes, units[unit]);
    return out;
}

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
