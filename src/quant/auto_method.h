/* auto_method.h - the best method that time and memory allow (--method auto). */
#ifndef JANG_QUANT_AUTO_METHOD_H
#define JANG_QUANT_AUTO_METHOD_H

#include "quant/plan.h"
#include "quant/quantizer.h"

/* What a conversion is, as far as methods' costs depend on it. */
typedef struct auto_job {
    ctx_t *ctx;
    const quant_plan *plan;
    int64_t n_tokens;        /* of calibration */
    bool can_calibrate;      /* there is a tokenizer */
    int32_t tune_steps;      /* asked for; -1: as many as the method takes by itself */
    int64_t gradient_tokens; /* likewise */
    double time_limit;       /* seconds; 0: an hour */
    uint64_t memory_limit;   /* bytes; 0: what the machine has to spare */
} auto_job;

/* Estimates of a method's seconds and bytes: measured costs of a weight and a multiplication, so
 * good to a factor of about two. */
typedef struct method_cost {
    double seconds;
    uint64_t bytes;
} method_cost;
method_cost auto_cost(const auto_job *job, const quantizer *q);

/* Bytes that may be used: the limit, or without one (0) what the machine has to spare. */
uint64_t auto_memory(uint64_t limit);

/* Of best, gptq, awq and mse the first that fits; mse, which needs next to nothing, in any case.
 * Logs which it is, and what it and the limits are. */
JANG_MUST_CHECK jang_status auto_method(const quantizer **out, const auto_job *job);

#endif
