/* gr_markers.h - free text up to markers. */
#ifndef JANG_GRAMMAR_GR_MARKERS_H
#define JANG_GRAMMAR_GR_MARKERS_H

#include "grammar/gr_auto.h"

#define GR_MAX_MARKERS 64u
#define GR_MAX_MARKER_BYTES 4096u

typedef struct gr_marked {
    const char *text;
    size_t n_bytes;
    uint32_t then; /* the node after it; 0: it may not turn up */
} gr_marked;

/* Writes any bytes in which the first marker to be completed leads to its own continuation. A
 * marker is its text, or the special token of that name. end, if not 0, is where the text may go
 * on at any point without a marker. Fills the place begin. */
JANG_MUST_CHECK jang_status gr_free_text(gr_auto *a, const gr_marked *markers, size_t n,
                                         uint32_t end, uint32_t begin);

#endif
