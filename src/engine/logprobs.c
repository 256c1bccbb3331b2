/* logprobs.c - log-probabilities of a model's own distribution. */
#include "engine/logprobs.h"

#include <math.h>
#include <string.h>

static double log_sum_exp(const float *logits, int32_t n_vocab) {
    float max = -INFINITY;
    for (int32_t i = 0; i < n_vocab; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    double sum = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        sum += isnan(logits[i]) ? 0 : exp((double)logits[i] - (double)max);
    }
    return (double)max + log(sum);
}

double logprobs_top(logprob_entry *top, int32_t k, const float *logits, int32_t n_vocab) {
    double sum = log_sum_exp(logits, n_vocab);
    int32_t n = 0; /* sorted so far */
    for (int32_t i = 0; k > 0 && i < n_vocab; i++) {
        if (n == k && !(logits[i] > top[n - 1].logprob)) {
            continue;
        }
        int32_t at = n < k ? n : k - 1;
        while (at > 0 && top[at - 1].logprob < logits[i]) {
            at--;
        }
        n += n < k;
        memmove(&top[at + 1], &top[at], (size_t)(n - 1 - at) * sizeof *top);
        top[at] = (logprob_entry){i, logits[i]};
    }
    for (int32_t i = 0; i < n; i++) {
        top[i].logprob = (float)((double)top[i].logprob - sum);
    }
    return sum;
}
