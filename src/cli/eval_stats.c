/* eval_stats.c - means, standard errors and percentiles. */
#include "eval_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void sample_free(eval_sample *s) {
    free(s->values);
    free(s->sums);
    free(s->sizes);
    *s = (eval_sample){0};
}

void sample_add(eval_sample *s, double value) {
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 1024;
        float *values = realloc(s->values, capacity * sizeof *values);
        if (!values) {
            s->failed = true;
            return;
        }
        s->values = values;
        s->capacity = capacity;
    }
    s->values[s->n++] = (float)value;
    s->sum += value;
    s->n_cluster++;
}

void sample_end_cluster(eval_sample *s) {
    if (s->n_cluster == 0) {
        return;
    }
    if (s->n_clusters == s->cluster_capacity) {
        size_t capacity = s->cluster_capacity ? s->cluster_capacity * 2 : 64;
        double *sums = realloc(s->sums, capacity * sizeof *sums);
        s->sums = sums ? sums : s->sums;
        size_t *sizes = realloc(s->sizes, capacity * sizeof *sizes);
        s->sizes = sizes ? sizes : s->sizes;
        if (!sums || !sizes) {
            s->failed = true;
            return;
        }
        s->cluster_capacity = capacity;
    }
    s->sums[s->n_clusters] = s->sum;
    s->sizes[s->n_clusters++] = s->n_cluster;
    s->sum = 0;
    s->n_cluster = 0;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The value below which the share of all n values lies. */
static double value_at(const float *sorted, size_t n, double share) {
    double at = ceil(share * (double)n);
    return sorted[at < 1 ? 0 : at > (double)n ? n - 1 : (size_t)at - 1];
}

static double error_of_tokens(const eval_sample *s, double mean) {
    double squares = 0;
    for (size_t i = 0; i < s->n; i++) {
        squares += (s->values[i] - mean) * (s->values[i] - mean);
    }
    return s->n > 1 ? sqrt(squares / ((double)s->n * (double)(s->n - 1))) : NAN;
}

static double error_of_clusters(const eval_sample *s, double mean) {
    double squares = 0, k = (double)s->n_clusters;
    for (size_t i = 0; i < s->n_clusters; i++) {
        double off = s->sums[i] - mean * (double)s->sizes[i];
        squares += off * off;
    }
    return sqrt(k / (k - 1) * squares) / (double)s->n;
}

/* Standard error of the share of values that are at most x. */
static double error_below(const eval_sample *s, double x, double share) {
    double squares = 0, k = (double)s->n_clusters;
    const float *value = s->values;
    for (size_t i = 0; i < s->n_clusters; i++) {
        double off = -share * (double)s->sizes[i];
        for (size_t j = 0; j < s->sizes[i]; j++) {
            off += *value++ <= x;
        }
        squares += off * off;
    }
    return s->n_clusters > 1 ? sqrt(k / (k - 1) * squares) / (double)s->n
                             : share_error(share, s->n);
}

static eval_percentile percentile(const eval_sample *s, const float *sorted, double share) {
    double x = value_at(sorted, s->n, share), error = error_below(s, x, share);
    double low = value_at(sorted, s->n, share - error),
           high = value_at(sorted, s->n, share + error);
    return (eval_percentile){x, s->n > 1 ? (high - low) / 2 : NAN};
}

bool sample_summary(eval_summary *out, eval_sample *s) {
    sample_end_cluster(s);
    float *sorted = s->failed || s->n == 0 ? NULL : malloc(s->n * sizeof *sorted);
    if (!sorted) {
        return false;
    }
    double sum = 0;
    for (size_t i = 0; i < s->n_clusters; i++) {
        sum += s->sums[i];
    }
    memcpy(sorted, s->values, s->n * sizeof *sorted);
    qsort(sorted, s->n, sizeof *sorted, by_value);
    double mean = sum / (double)s->n;
    *out = (eval_summary){
        .n = s->n,
        .mean = mean,
        .error = s->n_clusters > 1 ? error_of_clusters(s, mean) : error_of_tokens(s, mean),
        .p50 = percentile(s, sorted, 0.5),
        .p90 = percentile(s, sorted, 0.9),
        .p99 = percentile(s, sorted, 0.99),
        .p999 = percentile(s, sorted, 0.999),
        .max = sorted[s->n - 1],
    };
    free(sorted);
    return true;
}

double share_error(double share, size_t n) {
    return n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : NAN;
}
