/* progress_bar.c - bytes done, rate and time left of a long step. */
#include "progress_bar.h"

#include "terminal.h"

#include <string.h>

#define BAR_CELLS 24
#define DRAW_SECONDS 0.1
#define LINE_SECONDS 2.0

void progress_bar_init(progress_bar *bar, FILE *to) {
    *bar = (progress_bar){.to = to, .on_terminal = is_terminal(to), .last_draw = now_seconds()};
}

static void format_time(char *out, size_t n_bytes, double seconds) {
    long long s = seconds < 1e7 ? (long long)(seconds + 0.5) : 9999999;
    if (s >= 3600) {
        snprintf(out, n_bytes, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(out, n_bytes, "%lld:%02lld", s / 60, s % 60);
    }
}

/* " 42%  1.26 GB of 3.00 GB  150 MB/s  0:12 left" */
static void format_figures(char *out, size_t n_bytes, const jang_progress *p) {
    double share = p->total ? (double)p->done / (double)p->total : 1;
    double rate = p->seconds > 0 ? (double)p->done / p->seconds : 0;
    char left[32] = "?";
    if (rate > 0) {
        format_time(left, sizeof left, (double)(p->total - p->done) / rate);
    }
    snprintf(out, n_bytes, "%3.0f%%  %s of %s  %s/s  %s left", 100 * share,
             human_bytes((double)p->done).text, human_bytes((double)p->total).text,
             human_bytes(rate).text, left);
}

static void draw_bar(progress_bar *bar, const jang_progress *p, const char *figures) {
    int n_full = p->total ? (int)(BAR_CELLS * ((double)p->done / (double)p->total)) : BAR_CELLS;
    char cells[BAR_CELLS + 1];
    memset(cells, ' ', BAR_CELLS);
    memset(cells, '#', (size_t)n_full);
    cells[BAR_CELLS] = 0;
    char line[512];
    snprintf(line, sizeof line, "[%s] %s  %s", cells, figures, p->what ? p->what : "");
    /* cut so that the line never wraps; an ASCII line, so bytes are columns */
    int width = terminal_width(bar->to) - 1;
    fprintf(bar->to, "\r");
    for (int i = 0; line[i] && i < width; i++) {
        fputc(line[i] >= 0x20 && line[i] < 0x7f ? line[i] : '?', bar->to);
    }
    fputs("\x1b[K", bar->to);
    fflush(bar->to);
    bar->drawn = true;
}

void progress_bar_update(progress_bar *bar, const jang_progress *progress) {
    jang_progress p = *progress;
    p.done = p.done > p.total ? p.total : p.done;
    double now = now_seconds();
    if (now - bar->last_draw < (bar->on_terminal ? DRAW_SECONDS : LINE_SECONDS)) {
        return;
    }
    bar->last_draw = now;
    char figures[128];
    format_figures(figures, sizeof figures, &p);
    if (bar->on_terminal) {
        draw_bar(bar, &p, figures);
    } else {
        fprintf(bar->to, "%s\n", figures);
        fflush(bar->to);
    }
}

void progress_bar_finish(progress_bar *bar) {
    if (bar->drawn) {
        fputs("\r\x1b[K", bar->to);
        fflush(bar->to);
        bar->drawn = false;
    }
}
