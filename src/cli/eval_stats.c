/* eval_stats.c - means, standard errors and percentiles. */
#include "eval_stats.h"

#include <math.h>
#include <stdlib.h>

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

/* The value below which the share of all values lies, values being sorted. */
static double percentile(const eval_sample *s, double share) {
    size_t i = (size_t)ceil(share * (double)s->n);
    return s->values[i > 0 ? i - 1 : 0];
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

bool sample_summary(eval_summary *out, eval_sample *s) {
    sample_end_cluster(s);
    if (s->failed || s->n == 0) {
        return false;
    }
    double sum = 0;
    for (size_t i = 0; i < s->n_clusters; i++) {
        sum += s->sums[i];
    }
    qsort(s->values, s->n, sizeof *s->values, by_value);
    double mean = sum / (double)s->n;
    *out = (eval_summary){
        .n = s->n,
        .mean = mean,
        .error = s->n_clusters > 1 ? error_of_clusters(s, mean) : error_of_tokens(s, mean),
        .p50 = percentile(s, 0.5),
        .p90 = percentile(s, 0.9),
        .p99 = percentile(s, 0.99),
        .p999 = percentile(s, 0.999),
        .max = s->values[s->n - 1],
    };
    return true;
}

double share_error(double share, size_t n) {
    return n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : NAN;
}
