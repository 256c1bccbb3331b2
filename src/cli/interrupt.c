/* interrupt.c - SIGINT and SIGTERM as a request to stop. Signal handlers can reach nothing but
 * static variables; these are the only ones of the program that change. */
#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t n_seen;
static volatile sig_atomic_t second_kills;
static volatile sig_atomic_t is_final;

static void on_signal(int signal_number) {
    n_seen = n_seen + 1;
    is_final = is_final || signal_number == SIGTERM;
    if (second_kills && n_seen > 1) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
}

static void install(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void interrupt_catch(void) {
    second_kills = 1;
    install();
}

void interrupt_catch_all(void) {
    second_kills = 0;
    install();
}

bool interrupt_seen(void) {
    return n_seen != 0;
}

bool interrupt_is_final(void) {
    return is_final;
}

void interrupt_clear(void) {
    n_seen = 0;
}
