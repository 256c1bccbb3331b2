/* rope.c - rotary position embeddings: from a config's settings to frequencies. */
#include "model/rope.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* What the scalings read besides rope_theta. */
typedef struct scaling {
    json_at at;
    double theta, factor;
    bool has_mscales, has_alpha; /* of rope_wanted */
    double original_context;     /* tokens the model was first trained for */
    int64_t n_context;
    int n_rot;
    int n_turning;           /* elements that turn where the others have angles too: of 0 */
    double attention_factor; /* out: for cos and sin */
    float *long_freq;        /* out: for long sequences, or NULL */
} scaling;

typedef jang_status (*scaling_fn)(scaling *s, float *inv_freq);

/* ---- The scalings; inv_freq holds the plain frequencies and is changed in place ---- */

static jang_status scale_none(scaling *s, float *inv_freq) {
    (void)s, (void)inv_freq;
    return JANG_OK;
}

static jang_status need_factor(scaling *s) {
    jang_status status = json_get_double(&s->factor, s->at, "factor", 0);
    if (status == JANG_OK && !(s->factor > 0 && isfinite(s->factor))) {
        status = ctx_fail(s->at.ctx, JANG_ERR_FORMAT,
                          "%s: rope scaling: factor must be a number above 0", s->at.what);
    }
    return status;
}

static jang_status scale_linear(scaling *s, float *inv_freq) {
    jang_status status = need_factor(s);
    for (int i = 0; status == JANG_OK && i < s->n_rot / 2; i++) {
        inv_freq[i] /= (float)s->factor;
    }
    return status;
}

static void plain_frequencies(float *inv_freq, double theta, int n_rot) {
    for (int i = 0; i < n_rot / 2; i++) { /* exponent and power in f32, as the reference */
        inv_freq[i] = 1.0f / powf((float)theta, (float)(2 * i) / (float)n_rot);
    }
}

/* "dynamic" stretches only past max_position_embeddings, which is where a session ends here: the
 * frequencies within are the plain ones. Hunyuan's has a fixed alpha instead. */
static jang_status scale_dynamic(scaling *s, float *inv_freq) {
    double alpha = 0;
    jang_status status = s->has_alpha ? json_get_double(&alpha, s->at, "alpha", 0) : JANG_OK;
    if (status != JANG_OK || alpha == 0) {
        return status == JANG_OK ? need_factor(s) : status;
    }
    double theta = s->theta * pow(alpha, s->n_rot / (s->n_rot - 2.0));
    if (!(alpha > 0 && isfinite(theta))) {
        return ctx_fail(s->at.ctx, JANG_ERR_FORMAT,
                        "%s: rope scaling: alpha must be a number above 0", s->at.what);
    }
    plain_frequencies(inv_freq, theta, s->n_rot);
    return JANG_OK;
}

static jang_status scale_llama3(scaling *s, float *inv_freq) {
    double low, high;
    jang_status status = need_factor(s);
    if (status == JANG_OK) {
        status = json_get_double(&low, s->at, "low_freq_factor", 1);
    }
    if (status == JANG_OK) {
        status = json_get_double(&high, s->at, "high_freq_factor", 4);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!(low > 0 && high >= low)) { /* Llama 4 Scout's are equal: nothing lies between them */
        return ctx_fail(s->at.ctx, JANG_ERR_FORMAT,
                        "%s: rope scaling: 0 < low_freq_factor <= high_freq_factor is needed",
                        s->at.what);
    }
    for (int i = 0; i < s->n_rot / 2; i++) {
        float f = inv_freq[i], factor = (float)s->factor;
        float wavelength = (float)(2 * PI) / f;
        if (wavelength > (float)(s->original_context / low)) {
            inv_freq[i] = f / factor;
        } else if (high > low && wavelength >= (float)(s->original_context / high)) {
            float smooth =
                ((float)s->original_context / wavelength - (float)low) / (float)(high - low);
            inv_freq[i] = (1 - smooth) * f / factor + smooth * f;
        }
    }
    return JANG_OK;
}

static double yarn_mscale(double scale, double mscale) {
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

/* The dimension that makes n_turns over the original context (arXiv:2309.00071, section 3.2). */
static double yarn_dimension(const scaling *s, double n_turns) {
    return s->n_rot * log(s->original_context / (n_turns * 2 * PI)) / (2 * log(s->theta));
}

typedef struct yarn_settings {
    double attention_factor, mscale, mscale_all_dim, beta_fast, beta_slow;
    bool truncate;
} yarn_settings;

static jang_status yarn_read(yarn_settings *y, scaling *s) {
    const struct {
        const char *key;
        double *out, fallback;
    } keys[] = {
        {"factor", &s->factor, 0},        {"attention_factor", &y->attention_factor, 0},
        {"mscale", &y->mscale, 0},        {"mscale_all_dim", &y->mscale_all_dim, 0},
        {"beta_fast", &y->beta_fast, 32}, {"beta_slow", &y->beta_slow, 1},
    };
    jang_status status = json_get_bool(&y->truncate, s->at, "truncate", true);
    for (size_t i = 0; status == JANG_OK && i < sizeof keys / sizeof keys[0]; i++) {
        status = json_get_double(keys[i].out, s->at, keys[i].key, keys[i].fallback);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (s->factor == 0) {
        s->factor = (double)s->n_context / s->original_context;
    }
    if (!(s->factor > 0 && y->beta_fast > 0 && y->beta_slow > 0)) {
        return ctx_fail(s->at.ctx, JANG_ERR_FORMAT,
                        "%s: rope scaling: factor and betas must be above 0", s->at.what);
    }
    if (y->attention_factor == 0) {
        y->attention_factor =
            y->mscale != 0 && y->mscale_all_dim != 0
                ? yarn_mscale(s->factor, y->mscale) / yarn_mscale(s->factor, y->mscale_all_dim)
                : yarn_mscale(s->factor, 1);
    }
    return JANG_OK;
}

static jang_status scale_yarn(scaling *s, float *inv_freq) {
    yarn_settings y;
    jang_status status = yarn_read(&y, s);
    if (status != JANG_OK) {
        return status;
    }
    double low = yarn_dimension(s, y.beta_fast), high = yarn_dimension(s, y.beta_slow);
    low = fmax(y.truncate ? floor(low) : low, 0);
    high = fmin(y.truncate ? ceil(high) : high, s->n_rot - 1);
    high += low == high ? 0.001 : 0;
    for (int i = 0; i < s->n_rot / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        float plain = inv_freq[i], stretched = plain / (float)s->factor;
        inv_freq[i] = stretched * (1 - keep) + plain * keep;
    }
    s->attention_factor = y.attention_factor;
    return JANG_OK;
}

/* Divides the plain frequencies by an array of the settings. */
static jang_status divide_by(float *freq, const scaling *s, const char *key) {
    const json_t *factors;
    jang_status status = json_get_array(&factors, s->at, key);
    if (status == JANG_OK && json_array_size(factors) != (size_t)s->n_rot / 2) {
        status =
            ctx_fail(s->at.ctx, JANG_ERR_FORMAT, "%s: rope scaling: %s needs %d numbers, not %zu",
                     s->at.what, key, s->n_rot / 2, json_array_size(factors));
    }
    for (int i = 0; status == JANG_OK && i < s->n_rot / 2; i++) {
        double factor = json_number_value(json_array_get(factors, (size_t)i));
        if (!(factor > 0 && isfinite(factor))) {
            return ctx_fail(s->at.ctx, JANG_ERR_FORMAT,
                            "%s: rope scaling: %s[%d] must be a number above 0", s->at.what, key,
                            i);
        }
        freq[i] = 1.0f / ((float)factor * powf((float)s->theta, (float)(2 * i) / (float)s->n_rot));
    }
    return status;
}

/* Two sets of factors, for sequences up to the original context and for longer ones. */
/* Phi-3.5-MoE says what multiplies cos and sin, for short sequences and for long ones. */
static jang_status read_mscales(scaling *s) {
    double of_short, of_long;
    jang_status status = json_get_double(&of_short, s->at, "short_mscale", 0);
    if (status == JANG_OK) {
        status = json_get_double(&of_long, s->at, "long_mscale", 0);
    }
    if (status == JANG_OK && !(of_short > 0 && of_short == of_long)) {
        status = ctx_fail(s->at.ctx, JANG_ERR_UNSUPPORTED,
                          "%s: short_mscale %g and long_mscale %g: only equal ones above 0 are "
                          "supported",
                          s->at.what, of_short, of_long);
    }
    if (status == JANG_OK) {
        s->attention_factor = of_short;
    }
    return status;
}

static jang_status scale_longrope(scaling *s, float *inv_freq) {
    double factor;
    jang_status status =
        json_get_double(&factor, s->at, "factor", (double)s->n_context / s->original_context);
    if (status == JANG_OK) {
        double usual = factor <= 1 ? 1 : sqrt(1 + log(factor) / log(fmax(s->original_context, 2)));
        status = json_get_double(&s->attention_factor, s->at, "attention_factor", usual);
    }
    if (status == JANG_OK && s->has_mscales) {
        status = read_mscales(s);
    }
    if (status == JANG_OK) {
        status = divide_by(inv_freq, s, "short_factor");
    }
    if (status != JANG_OK) {
        return status;
    }
    s->long_freq = ctx_array(s->at.ctx, (size_t)s->n_rot / 2, sizeof *s->long_freq);
    if (!s->long_freq) {
        return ctx_fail_memory(s->at.ctx, (size_t)s->n_rot * 2);
    }
    status = divide_by(s->long_freq, s, "long_factor");
    if (status != JANG_OK) {
        ctx_free(s->at.ctx, s->long_freq);
        s->long_freq = NULL;
    }
    return status;
}

/* Frequencies of the whole head, of which only the first turn. */
static jang_status scale_proportional(scaling *s, float *inv_freq) {
    double factor;
    jang_status status = json_get_double(&factor, s->at, "factor", 1);
    for (int i = 0; status == JANG_OK && i < s->n_rot / 2; i++) {
        inv_freq[i] = i < s->n_turning / 2 ? inv_freq[i] / (float)factor : 0;
    }
    return status;
}

static const struct {
    const char *name;
    scaling_fn apply;
} scalings[] = {
    {"default", scale_none},    {"linear", scale_linear},
    {"dynamic", scale_dynamic}, {"llama3", scale_llama3},
    {"yarn", scale_yarn},       {"longrope", scale_longrope},
    {"su", scale_longrope},     {"proportional", scale_proportional},
};

/* ---- Reading ---- */

static jang_status find_scaling(scaling_fn *out, json_at at, const char *name) {
    for (size_t i = 0; i < sizeof scalings / sizeof scalings[0]; i++) {
        if (strcmp(scalings[i].name, name) == 0) {
            *out = scalings[i].apply;
            return JANG_OK;
        }
    }
    return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                    "%s: rope scaling of type %s is not supported for this family; supported are "
                    "default, linear, dynamic, llama3, yarn, longrope, proportional",
                    at.what, name);
}

/* Finds the object with the settings: rope_parameters (or its part for a kind of layer),
 * rope_scaling, or none. */
static jang_status find_settings(json_at *out, json_at config, const rope_wanted *w) {
    const json_t *object, *part = NULL;
    jang_status status = json_get_object(&object, config, "rope_parameters");
    if (status == JANG_OK && object && w->layer_type) {
        status = json_get_object(&part, (json_at){config.ctx, config.what, object}, w->layer_type);
        object = part ? part : w->unscaled ? NULL : object;
    } else if (status == JANG_OK && !object && !w->unscaled) {
        status = json_get_object(&object, config, "rope_scaling");
    }
    *out = (json_at){config.ctx, config.what, object};
    return status;
}

jang_status rope_read_number(double *out, json_at config, const char *key, double fallback) {
    static const rope_wanted plain = {0};
    json_at settings;
    jang_status status = find_settings(&settings, config, &plain);
    return status == JANG_OK ? json_get_double(out, settings, key, fallback) : status;
}

static jang_status read_scaling(scaling *s, const char **type, json_at config,
                                const rope_wanted *w) {
    double theta;
    jang_status status = find_settings(&s->at, config, w);
    if (status == JANG_OK && w->needs_scaling && !s->at.object) {
        status =
            ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                     "%s: rope_scaling is missing; models of this family have it", config.what);
    }
    if (status == JANG_OK) {
        const char *key = w->theta_key ? w->theta_key : "rope_theta";
        status = json_get_double(&theta, config, key, w->theta);
    }
    if (status == JANG_OK) {
        status = json_get_double(&s->theta, s->at, "rope_theta", theta);
    }
    if (status == JANG_OK) {
        status = json_get_string(type, s->at, "type", "default");
    }
    if (status == JANG_OK) {
        status = json_get_string(type, s->at, "rope_type", *type);
    }
    if (status == JANG_OK) {
        status =
            json_get_double(&s->original_context, s->at, "original_max_position_embeddings",
                            w->original_context > 0 ? w->original_context : (double)s->n_context);
    }
    if (status == JANG_OK) {
        status = json_get_double(&s->original_context, config, "original_max_position_embeddings",
                                 s->original_context);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!(s->theta > 1 && isfinite(s->theta) && s->original_context >= 1)) {
        return ctx_fail(config.ctx, JANG_ERR_FORMAT,
                        "%s: rope_theta must be above 1 and original_max_position_embeddings at "
                        "least 1",
                        config.what);
    }
    return JANG_OK;
}

/* partial_rotary_factor stands beside rope_theta or in the settings. */
static jang_status read_n_rot(int *out, json_at config, json_at settings, const rope_wanted *w) {
    double part = w->part == 0 ? 1 : w->part;
    int head_dim = w->head_dim;
    jang_status status = JANG_OK;
    if (w->part_key) {
        status = json_get_double(&part, config, w->part_key, part);
    }
    if (status == JANG_OK) {
        status = json_get_double(&part, config, "partial_rotary_factor", part);
    }
    if (status == JANG_OK) {
        status = json_get_double(&part, settings, "partial_rotary_factor", part);
    }
    if (status != JANG_OK) {
        return status;
    }
    int n_rot = part > 0 && part <= 1 ? (int)(head_dim * part) : 0;
    if (n_rot < 2 || n_rot % 2 != 0) {
        return ctx_fail(
            config.ctx, JANG_ERR_FORMAT,
            "%s: partial_rotary_factor %g of a head of %d leaves no even number to turn",
            config.what, part, head_dim);
    }
    *out = n_rot;
    return JANG_OK;
}

jang_status rope_read(rope_config *out, json_at config, const rope_wanted *w) {
    scaling s = {.n_context = w->n_context,
                 .attention_factor = 1,
                 .has_mscales = w->has_mscales,
                 .has_alpha = w->has_alpha};
    const char *type;
    scaling_fn apply = scale_none;
    jang_status status = read_scaling(&s, &type, config, w);
    if (status == JANG_OK) {
        status = read_n_rot(&s.n_rot, config, s.at, w);
    }
    if (status == JANG_OK) {
        status = find_scaling(&apply, s.at, type);
    }
    if (status == JANG_OK && w->has_mscales && apply != scale_none && apply != scale_longrope) {
        status = ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                          "%s: rope scaling of type %s is not supported for this family; longrope "
                          "is",
                          config.what, type);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (apply == scale_proportional) {
        s.n_turning = s.n_rot;
        s.n_rot = w->head_dim;
    }
    float *inv_freq = ctx_array(config.ctx, (size_t)s.n_rot / 2, sizeof *inv_freq);
    if (!inv_freq) {
        return ctx_fail_memory(config.ctx, (size_t)s.n_rot * 2);
    }
    plain_frequencies(inv_freq, s.theta, s.n_rot);
    status = apply(&s, inv_freq);
    if (status != JANG_OK) {
        ctx_free(config.ctx, inv_freq);
        return status;
    }
    *out = (rope_config){.long_freq = s.long_freq,
                         .long_from = (int32_t)fmin(s.original_context, INT32_MAX),
                         .theta = s.theta,
                         .n_rot = s.n_rot,
                         .scale = (float)s.attention_factor,
                         .inv_freq = inv_freq};
    return JANG_OK;
}

void rope_free(rope_config *rope, ctx_t *ctx) {
    ctx_free(ctx, rope->inv_freq);
    ctx_free(ctx, rope->long_freq);
    rope->inv_freq = rope->long_freq = NULL;
}

jang_status rope_load(rope_desc *out, loader *l, const rope_config *rope) {
    ops_weight *inv_freq, *long_freq = NULL;
    int64_t n = rope->n_rot / 2;
    jang_status status = load_computed(&inv_freq, l, rope->inv_freq, n, "rope frequencies");
    if (status == JANG_OK && rope->long_freq) {
        status = load_computed(&long_freq, l, rope->long_freq, n, "long rope frequencies");
    }
    if (status == JANG_OK) {
        *out = (rope_desc){.inv_freq = inv_freq,
                           .n_rot = rope->n_rot,
                           .interleaved = rope->interleaved,
                           .scale = rope->scale,
                           .long_freq = long_freq,
                           .long_from = rope->long_from};
    }
    return status;
}
