/* interrupt.h - Ctrl-C (SIGINT) and SIGTERM as a request to stop, seen by callbacks. */
#ifndef JANG_CLI_INTERRUPT_H
#define JANG_CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on the first signal is only recorded; a second one before interrupt_clear ends the
 * program as it does by default. System calls are not restarted. */
void interrupt_catch(void);

/* From now on signals are only recorded, however many come. */
void interrupt_catch_all(void);

bool interrupt_seen(void);
/* Whether SIGTERM was among them: the program is asked to end. */
bool interrupt_is_final(void);
void interrupt_clear(void);

#endif
