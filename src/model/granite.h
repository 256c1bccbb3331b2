/* granite.h - what Granite's families have in common. */
#ifndef JANG_MODEL_GRANITE_H
#define JANG_MODEL_GRANITE_H

#include "model/decoder.h"

/* Reads the four multipliers into c. */
JANG_MUST_CHECK jang_status granite_read_multipliers(decoder_config *c, json_at config);

#endif
