/* eval_stats.h - figures over many tokens: mean with its standard error, percentiles.
 *
 * Tokens of one text depend on each other, so a standard error from single tokens would be too
 * small. Samples are gathered in clusters (a window of text each), and the error is that of the
 * ratio estimator over clusters (Cochran, Sampling Techniques, section 9A). A percentile's is half
 * the distance between the values at the shares one standard error below and above its own, the
 * share of values up to it being such a ratio (Woodruff, JASA 47, 1952). */
#ifndef JANG_CLI_EVAL_STATS_H
#define JANG_CLI_EVAL_STATS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct eval_sample {
    float *values; /* [n] */
    size_t n, capacity;
    double sum;       /* of the values of the cluster at hand */
    size_t n_cluster; /* values in it */
    double *sums;     /* [n_clusters] of those that have ended */
    size_t *sizes;    /* [n_clusters] */
    size_t n_clusters, cluster_capacity;
    bool failed; /* out of memory: the summary would be wrong */
} eval_sample;

typedef struct eval_percentile {
    double value, error;
} eval_percentile;

typedef struct eval_summary {
    size_t n;
    double mean, error; /* error: one standard error of the mean; NAN from a single value */
    eval_percentile p50, p90, p99, p999; /* errors likewise */
    double max;
} eval_summary;

void sample_free(eval_sample *s);
void sample_add(eval_sample *s, double value);
/* Ends the cluster at hand, if it holds anything. */
void sample_end_cluster(eval_sample *s);
/* False when memory ran out or there is no value. */
bool sample_summary(eval_summary *out, eval_sample *s);

/* Standard error of a share of n trials (binomial). */
double share_error(double share, size_t n);

#endif
