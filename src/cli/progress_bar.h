/* progress_bar.h - how far a long step is: a bar on a terminal, a line every two seconds elsewhere.
 */
#ifndef JANG_CLI_PROGRESS_BAR_H
#define JANG_CLI_PROGRESS_BAR_H

#include "jang.h"

#include <stdio.h>

typedef struct progress_bar {
    FILE *to;
    bool on_terminal;
    bool drawn;       /* something stands on the bar's line */
    double last_draw; /* now_seconds() of the last drawing */
} progress_bar;

void progress_bar_init(progress_bar *bar, FILE *to);

/* Draws, unless it was drawn a moment ago. */
void progress_bar_update(progress_bar *bar, const jang_progress *progress);

/* Clears the bar from the terminal. */
void progress_bar_finish(progress_bar *bar);

#endif
