/* eval_report.c - the page of a comparison: figures, size against divergence, bits per tensor as a
 * heat map over layers and roles, answers side by side. Drawn as SVG and tables, without scripts.
 */
#include "eval_report.h"

#include "server/text_buf.h"
#include "terminal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char style[] =
    ":root{color-scheme:light dark;--line:#8884;--point:#2563eb;--pareto:#16a34a}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "th,td{border-bottom:1px solid var(--line);padding:.25rem .6rem;text-align:right;"
    "vertical-align:top}"
    "th:first-child,td:first-child{text-align:left}"
    ".heat td{border:1px solid var(--line);min-width:1.6rem;text-align:center;color:#111;"
    "padding:.1rem}"
    ".heat th{font-weight:400;font-size:12px;text-align:center;border:0}"
    ".answers td{text-align:left;white-space:pre-wrap;max-width:28rem}"
    "svg{max-width:100%;height:auto}svg text{fill:currentColor;font-size:12px}"
    ".wide{overflow-x:auto}";

/* ---- Text ---- */

/* Text of others: the five characters that mean something in HTML are written as entities. */
static void add_escaped(tbuf *b, const char *text) {
    for (const char *c = text ? text : ""; *c; c++) {
        const char *entity = *c == '&'    ? "&amp;"
                             : *c == '<'  ? "&lt;"
                             : *c == '>'  ? "&gt;"
                             : *c == '"'  ? "&quot;"
                             : *c == '\'' ? "&#39;"
                                          : NULL;
        if (entity) {
            tbuf_printf(b, "%s", entity);
        } else {
            tbuf_add(b, c, 1);
        }
    }
}

static const char *base_name(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    const char *at = path + n;
    while (at > path && at[-1] != '/') {
        at--;
    }
    return at;
}

static const char *text_of(const json_t *o, const char *key) {
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static double number_of(const json_t *o, const char *key) {
    const json_t *value = json_object_get(o, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* A model's figures over all texts: the last of its sets. */
static const json_t *total_of(const json_t *model) {
    const json_t *texts = json_object_get(model, "texts");
    return json_array_get(texts, json_array_size(texts) - 1);
}

/* ---- Figures ---- */

static void add_figures(tbuf *b, const json_t *models) {
    tbuf_printf(b, "<table><tr><th>model<th>profile<th>text<th>bits/weight<th>bytes<th>mean KL<th>"
                   "99%%<th>same top %%<th>perplexity<th>of reference</tr>\n");
    size_t i, s;
    const json_t *model, *set;
    json_array_foreach(models, i, model) {
        json_array_foreach(json_object_get(model, "texts"), s, set) {
            const json_t *kl = json_object_get(set, "kl");
            tbuf_printf(b, "<tr><td>");
            add_escaped(b, base_name(text_of(model, "model")));
            tbuf_printf(b, "<td>");
            add_escaped(b, text_of(model, "profile"));
            tbuf_printf(b, "<td>");
            add_escaped(b, base_name(text_of(set, "text")));
            tbuf_printf(b,
                        "<td>%.2f<td>%s<td>%.4g &plusmn; %.1g<td>%.3g &plusmn; %.1g<td>%.2f<td>%.4g"
                        "<td>%.4g</tr>\n",
                        number_of(model, "true_bits"),
                        human_bytes(number_of(model, "weight_bytes")).text, number_of(kl, "mean"),
                        number_of(kl, "error"), number_of(kl, "p99"), number_of(kl, "p99_error"),
                        100 * number_of(set, "same_top"), number_of(set, "perplexity"),
                        number_of(set, "reference_perplexity"));
        }
    }
    tbuf_printf(b, "</table>\n");
}

/* ---- Size against divergence ---- */

#define PLOT_WIDTH 760
#define PLOT_HEIGHT 380
#define PLOT_MARGIN 60

typedef struct plot_point {
    double bits, kl;
    const char *name;
} plot_point;

static int by_bits(const void *a, const void *b) {
    const plot_point *x = a, *y = b;
    return x->bits != y->bits ? (x->bits > y->bits) - (x->bits < y->bits)
                              : (x->kl > y->kl) - (x->kl < y->kl);
}

typedef struct plot_range {
    double low_bits, high_bits, low_kl, high_kl; /* kl as logarithms to base 10 */
} plot_range;

static plot_range range_of(const plot_point *points, size_t n) {
    plot_range r = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (size_t i = 0; i < n; i++) {
        r.low_bits = fmin(r.low_bits, points[i].bits);
        r.high_bits = fmax(r.high_bits, points[i].bits);
        r.low_kl = fmin(r.low_kl, log10(points[i].kl));
        r.high_kl = fmax(r.high_kl, log10(points[i].kl));
    }
    r.low_bits = floor(r.low_bits - 0.2);
    r.high_bits = ceil(r.high_bits + 0.2);
    r.low_kl = floor(r.low_kl);
    r.high_kl = ceil(r.high_kl + 1e-9);
    return r;
}

static double x_of(const plot_range *r, double bits) {
    double width = PLOT_WIDTH - 2 * PLOT_MARGIN;
    return PLOT_MARGIN + (bits - r->low_bits) / (r->high_bits - r->low_bits) * width;
}

static double y_of(const plot_range *r, double kl) {
    double height = PLOT_HEIGHT - 2 * PLOT_MARGIN;
    double share = (log10(kl) - r->low_kl) / (r->high_kl - r->low_kl);
    return PLOT_HEIGHT - PLOT_MARGIN - share * height;
}

static void add_axes(tbuf *b, const plot_range *r) {
    for (double bits = r->low_bits; bits <= r->high_bits; bits++) {
        double x = x_of(r, bits);
        tbuf_printf(b,
                    "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' stroke='var(--line)'/>"
                    "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>\n",
                    x, x, PLOT_MARGIN, PLOT_HEIGHT - PLOT_MARGIN, x, PLOT_HEIGHT - PLOT_MARGIN + 18,
                    bits);
    }
    for (double e = r->low_kl; e <= r->high_kl; e++) {
        double y = y_of(r, pow(10, e));
        tbuf_printf(b,
                    "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='var(--line)'/>"
                    "<text x='%d' y='%.1f' text-anchor='end'>%g</text>\n",
                    PLOT_MARGIN, PLOT_WIDTH - PLOT_MARGIN, y, y, PLOT_MARGIN - 8, y + 4,
                    pow(10, e));
    }
    tbuf_printf(b,
                "<text x='%d' y='%d' text-anchor='middle'>true bits per weight</text>"
                "<text x='14' y='%d' transform='rotate(-90 14 %d)' text-anchor='middle'>mean KL "
                "(nats)</text>\n",
                PLOT_WIDTH / 2, PLOT_HEIGHT - 12, PLOT_HEIGHT / 2, PLOT_HEIGHT / 2);
}

/* The Pareto line joins the points that no other beats in both size and divergence. */
static void add_points(tbuf *b, const plot_range *r, const plot_point *points, size_t n) {
    tbuf_printf(b, "<polyline fill='none' stroke='var(--pareto)' stroke-width='2' points='");
    double best = INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (points[i].kl < best) {
            best = points[i].kl;
            tbuf_printf(b, "%.1f,%.1f ", x_of(r, points[i].bits), y_of(r, points[i].kl));
        }
    }
    tbuf_printf(b, "'/>\n");
    for (size_t i = 0; i < n; i++) {
        double x = x_of(r, points[i].bits), y = y_of(r, points[i].kl);
        tbuf_printf(
            b, "<circle cx='%.1f' cy='%.1f' r='5' fill='var(--point)'/><text x='%.1f' y='%.1f'>", x,
            y, x + 8, y - 6);
        add_escaped(b, points[i].name);
        tbuf_printf(b, "</text>\n");
    }
}

static void add_plot(tbuf *b, const json_t *models) {
    plot_point *points = calloc(json_array_size(models) + 1, sizeof *points);
    size_t n = 0, i;
    const json_t *model;
    if (!points) {
        b->failed = true;
        return;
    }
    json_array_foreach(models, i, model) {
        double kl = number_of(json_object_get(total_of(model), "kl"), "mean");
        double bits = number_of(model, "true_bits");
        if (isfinite(kl) && kl > 0 && isfinite(bits)) {
            points[n++] = (plot_point){bits, kl, base_name(text_of(model, "model"))};
        }
    }
    if (n > 0) {
        qsort(points, n, sizeof *points, by_bits);
        plot_range r = range_of(points, n);
        tbuf_printf(b,
                    "<h2>Size against divergence</h2>\n<svg viewBox='0 0 %d %d' width='%d' "
                    "height='%d' role='img' aria-label='true bits per weight against mean KL'>\n",
                    PLOT_WIDTH, PLOT_HEIGHT, PLOT_WIDTH, PLOT_HEIGHT);
        add_axes(b, &r);
        add_points(b, &r, points, n);
        tbuf_printf(b, "</svg>\n<p>The line joins the models that none beats in both.</p>\n");
    }
    free(points);
}

/* ---- Bits per tensor ---- */

/* The number in a name's "layers.N." or "h.N.", -1: not of a layer. */
static int layer_of(const char *name) {
    for (const char *c = strchr(name, '.'); c; c = strchr(c + 1, '.')) {
        size_t n = strspn(c + 1, "0123456789");
        if (n > 0 && n < 6 && c[1 + n] == '.') {
            return (int)strtol(c + 1, NULL, 10);
        }
    }
    return -1;
}

/* From red (few bits) over yellow to green (many). */
static void add_cell(tbuf *b, double bits) {
    double hue = bits < 2 ? 0 : bits > 8 ? 140 : (bits - 2) / 6 * 140;
    tbuf_printf(b, "<td style='background:hsl(%.0f 70%% 70%%)'>%g", hue, bits);
}

/* Bits by role and layer: roles -> array of bits (null: not quantized), and outside the layers. */
static json_t *collect_bits(const json_t *tensors, size_t *n_layers) {
    json_t *roles = json_object();
    size_t i;
    const json_t *tensor;
    *n_layers = 0;
    json_array_foreach(tensors, i, tensor) {
        const json_t *bits = json_object_get(tensor, "bits");
        if (!json_is_number(bits) || json_number_value(bits) < 1 || json_number_value(bits) > 8) {
            continue;
        }
        int layer = layer_of(text_of(tensor, "name"));
        const char *role = text_of(tensor, "role");
        if (!json_object_get(roles, role)) {
            json_object_set_new(roles, role, json_object());
        }
        char key[16];
        snprintf(key, sizeof key, "%d", layer);
        json_object_set_new(json_object_get(roles, role), key, json_real(json_number_value(bits)));
        *n_layers = layer + 1 > (int)*n_layers ? (size_t)layer + 1 : *n_layers;
    }
    return roles;
}

static void add_heat_map(tbuf *b, const json_t *model) {
    size_t n_layers;
    json_t *roles = collect_bits(json_object_get(model, "tensors"), &n_layers);
    tbuf_printf(b, "<h3>");
    add_escaped(b, base_name(text_of(model, "model")));
    tbuf_printf(b, "</h3>\n<div class='wide'><table class='heat'><tr><th>role<th>");
    for (size_t i = 0; i < n_layers; i++) {
        tbuf_printf(b, "<th>%zu", i);
    }
    tbuf_printf(b, "</tr>\n");
    const char *role;
    json_t *bits;
    json_object_foreach(roles, role, bits) {
        tbuf_printf(b, "<tr><th>");
        add_escaped(b, role);
        for (int layer = -1; layer < (int)n_layers; layer++) {
            char key[16];
            snprintf(key, sizeof key, "%d", layer);
            const json_t *value = json_object_get(bits, key);
            if (value) {
                add_cell(b, json_number_value(value));
            } else {
                tbuf_printf(b, "<td>");
            }
        }
        tbuf_printf(b, "</tr>\n");
    }
    tbuf_printf(b, "</table></div>\n");
    json_decref(roles);
}

/* ---- Answers ---- */

static void add_answers(tbuf *b, const json_t *answers) {
    size_t i;
    json_t *row;
    if (!json_array_size(answers)) {
        return;
    }
    tbuf_printf(b, "<h2>Answers</h2>\n");
    json_array_foreach(answers, i, row) {
        const json_t *prompt = json_object_get(row, "prompt");
        const json_t *plain = json_object_get(prompt, "prompt");
        char *messages = plain ? NULL : json_dumps(json_object_get(prompt, "messages"), 0);
        const char *model;
        json_t *answer;
        tbuf_printf(b, "<h3>");
        add_escaped(b, plain ? json_string_value(plain) : messages);
        tbuf_printf(b, "</h3>\n<div class='wide'><table class='answers'><tr>");
        json_object_foreach(json_object_get(row, "answers"), model, answer) {
            tbuf_printf(b, "<th>");
            add_escaped(b, base_name(model));
        }
        tbuf_printf(b, "</tr>\n<tr>");
        json_object_foreach(json_object_get(row, "answers"), model, answer) {
            tbuf_printf(b, "<td>");
            add_escaped(b, json_string_value(answer));
        }
        tbuf_printf(b, "</tr></table></div>\n");
        free(messages);
    }
}

/* ---- Writing ---- */

static bool write_file(const char *directory, const char *name, const char *text, size_t n) {
    tbuf path = {0}, beside = {0};
    tbuf_printf(&path, "%s/%s", directory, name);
    tbuf_printf(&beside, "%s/%s.partial", directory, name);
    bool ok = !path.failed && !beside.failed;
    FILE *file = ok ? fopen(beside.data, "wb") : NULL;
    ok = file && fwrite(text, 1, n, file) == n && fflush(file) == 0 && fsync(fileno(file)) == 0;
    ok = file && fclose(file) == 0 && ok;
    ok = ok && rename(beside.data, path.data) == 0;
    if (!ok) {
        cli_failed("cannot write %s/%s: %s", directory, name, strerror(errno));
    }
    tbuf_free(&path);
    tbuf_free(&beside);
    return ok;
}

static void make_page(tbuf *b, const json_t *results) {
    const json_t *models = json_object_get(results, "models");
    tbuf_printf(b,
                "<!doctype html>\n<html lang='en'><meta charset='utf-8'>"
                "<meta name='viewport' content='width=device-width'><title>Comparison of quantized "
                "models</title>\n<style>%s</style>\n<h1>Comparison with ",
                style);
    add_escaped(b, base_name(text_of(results, "reference")));
    tbuf_printf(b,
                "</h1>\n<p>KL: divergence of a model's distribution over the next token from the "
                "reference's, in nats. &plusmn;: one standard error.</p>\n");
    add_figures(b, models);
    add_plot(b, models);
    tbuf_printf(b, "<h2>Bits of each matrix, by role and layer</h2>\n");
    size_t i;
    const json_t *model;
    json_array_foreach(models, i, model) {
        add_heat_map(b, model);
    }
    add_answers(b, json_object_get(results, "answers"));
    tbuf_printf(b, "</html>\n");
}

bool report_write(const char *directory, const json_t *results) {
    if (mkdir(directory, 0777) != 0 && errno != EEXIST) {
        cli_failed("cannot make %s: %s", directory, strerror(errno));
        return false;
    }
    tbuf page = {0};
    make_page(&page, results);
    char *json = json_dumps(results, JSON_INDENT(1) | JSON_REAL_PRECISION(7));
    bool ok = json && !page.failed;
    if (!ok) {
        cli_failed("out of memory");
    }
    ok = ok && write_file(directory, "results.json", json, strlen(json)) &&
         write_file(directory, "index.html", page.data, page.n);
    free(json);
    tbuf_free(&page);
    return ok;
}
