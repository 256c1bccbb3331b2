/* jang.h - the public interface of libjang.
 *
 * libjang turns open language models into mixed-precision quantized models and runs them.
 * Everything a program needs is in this file and in jang_engine.h, which it includes. The usual way
 * through it:
 *
 *     jang_context *ctx;   jang_context_new(&ctx, NULL);            allocator, log, last error
 *     jang_model *model;   jang_model_open(&model, ctx, dir, NULL); weights, tokenizer, template
 *     jang_session *chat;  jang_session_new(&chat, model, NULL);    one conversation and its cache
 *     jang_chat_prompt(...)  -> text    jang_tokenize(...) -> ids    jang_generate(...) -> answer
 *
 * or, to make a model:  jang_convert(ctx, &options, &report); to serve many: jang_engine.h.
 *
 * Rules that hold everywhere
 * - A function that can fail returns jang_status; results go to the out parameters, which come
 *   first and stay untouched on failure. jang_context_error() then gives one line that says what
 *   went wrong, where, and what is allowed.
 * - An object received through an out parameter is owned by the caller and ends with its own
 *   _free (or _close); memory received so ends with jang_free(). All of them take NULL.
 * - A pointer returned as a value, or found in a struct of results, is borrowed from the object it
 *   came from and lives as long as that object, unless its comment says otherwise.
 * - Text is UTF-8. A size in bytes stands beside each text; a 0 byte follows it as well.
 * - The library never exits, aborts or prints.
 * - Threads: different contexts are independent. Objects of one context may be used by one thread
 *   at a time; the library's own worker threads are its own affair.
 * - Option structs are filled by their _default function and then changed, so that programs keep
 *   working when fields are added. NULL for an option struct means the defaults.
 */
#ifndef JANG_H
#define JANG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define JANG_API
#elif defined(__GNUC__)
#define JANG_API __attribute__((visibility("default")))
#else
#define JANG_API
#endif

#if defined(__GNUC__)
#define JANG_MUST_CHECK __attribute__((warn_unused_result))
#else
#define JANG_MUST_CHECK
#endif

#define JANG_VERSION_MAJOR 0
#define JANG_VERSION_MINOR 1
#define JANG_VERSION_PATCH 0
#define JANG_VERSION "0.1.0"

/* ---- Status ---------------------------------------------------------------------------------- */

/* Values are fixed for good; new ones are added below the last. */
typedef enum jang_status {
    JANG_OK = 0,
    JANG_ERR_MEMORY = -1, /* an allocation failed, or a model needs more memory than there is */
    JANG_ERR_IO = -2,     /* a file cannot be opened, read or written */
    JANG_ERR_FORMAT = -3, /* a file or text is damaged, or contradicts itself */
    JANG_ERR_UNSUPPORTED = -4, /* well formed, but this build cannot do it */
    JANG_ERR_ARGUMENT = -5,    /* the caller asked for something impossible */
    JANG_ERR_EXISTS = -6,      /* the output is already there */
    JANG_ERR_CANCELLED = -7,   /* a callback asked to stop */
    JANG_ERR_FULL = -8,        /* a context, of a session or request, is used up */
    JANG_ERR_BUSY = -9,        /* too much is waiting already; later it may go */
} jang_status;

/* Returns the name of a status, "JANG_ERR_IO"; never NULL. */
JANG_API const char *jang_status_name(jang_status status);

/* Returns the version of the library that is linked, e.g. "0.1.0". */
JANG_API const char *jang_version(void);

/* ---- Context --------------------------------------------------------------------------------- */

typedef struct jang_context jang_context;

/* Receives one line of diagnostics, without a line feed. Must not call the library. */
typedef void (*jang_log_fn)(void *user, const char *line);

/* As realloc: ptr NULL allocates, size 0 frees and returns NULL. Alignment as malloc's. May be
 * called from several threads at once. */
typedef void *(*jang_realloc_fn)(void *user, void *ptr, size_t size);

typedef struct jang_context_options {
    int n_threads;   /* worker threads, the caller's included; 0: one per core */
    jang_log_fn log; /* NULL: silence */
    void *log_user;
    jang_realloc_fn reallocate; /* NULL: the C library's */
    void *reallocate_user;
    /* Cores to bind the threads to, one each: "0-3,8"; n_threads 0 then means one for each of them.
     * A thread that calls the library to compute is bound to the first. NULL: none is bound. */
    const char *affinity;
} jang_context_options;

JANG_API jang_context_options jang_context_options_default(void);

/* Makes a context and its threads. Errors: JANG_ERR_MEMORY, JANG_ERR_ARGUMENT (n_threads,
 * affinity: cores that there are not), JANG_ERR_UNSUPPORTED (affinity); the log gets the reason. */
JANG_API JANG_MUST_CHECK jang_status jang_context_new(jang_context **out,
                                                      const jang_context_options *options);
JANG_API void jang_context_free(jang_context *ctx);

/* Returns the message of the last failure, one line without a line feed; "" if there was none.
 * Valid until the next call that fails. */
JANG_API const char *jang_context_error(const jang_context *ctx);

/* Frees memory that the library gave to the caller. */
JANG_API void jang_free(jang_context *ctx, void *ptr);

/* Describes the build and the machine as lines of text: instruction set in use and those compiled
 * in, backends, libraries with their versions, threads. Borrowed from the context. */
JANG_API const char *jang_build_info(jang_context *ctx);

/* Returns the number of threads that compute, the caller's included. */
JANG_API int jang_context_threads(const jang_context *ctx);

/* Measures the bandwidth at which the context's threads read memory, in bytes a second: the median
 * of several passes over a block in large pages, much larger than the caches. Takes a fraction of a
 * second. */
JANG_API JANG_MUST_CHECK jang_status jang_measure_bandwidth(double *bytes_per_second,
                                                            jang_context *ctx);

/* ---- Progress -------------------------------------------------------------------------------- */

typedef struct jang_progress {
    const char *what;     /* the tensor or step at hand */
    uint64_t done, total; /* in bytes of the source */
    double seconds;       /* since the start */
} jang_progress;

/* Returns false to cancel. */
typedef bool (*jang_progress_fn)(void *user, const jang_progress *progress);

/* ---- Text: tokenizer and chat template ------------------------------------------------------- */

typedef struct jang_tokenizer jang_tokenizer;

/* Flags of jang_tokenize. */
#define JANG_TOKENIZE_ADD_SPECIAL 1u /* add what the post-processor adds (begin of text) */
#define JANG_TOKENIZE_NO_SPECIAL 2u  /* treat the text of special tokens as plain text */

/* Flags of jang_detokenize and jang_text_new. */
#define JANG_TEXT_SKIP_SPECIAL 1u /* leave out special tokens */

/* Opens the tokenizer (and chat template) of a model directory, a .jang or a GGUF file, without
 * its weights. */
JANG_API JANG_MUST_CHECK jang_status jang_tokenizer_open(jang_tokenizer **out, jang_context *ctx,
                                                         const char *path);
JANG_API void jang_tokenizer_free(jang_tokenizer *tok);

/* Number of ids the tokenizer knows: 1 + the largest. */
JANG_API int32_t jang_tokenizer_size(const jang_tokenizer *tok);

/* Turns text into ids, which are freed with jang_free. Invalid UTF-8 is read as U+FFFD. */
JANG_API JANG_MUST_CHECK jang_status jang_tokenize(int32_t **ids, size_t *n_ids,
                                                   jang_tokenizer *tok, const char *text,
                                                   size_t n_bytes, unsigned flags);

/* Turns two texts into ids as the tokenizer's post-processor puts them together, for models that
 * judge one text by another. *types, if not NULL, takes the token types (0: first text, 1: second,
 * in BERT's models); both are freed with jang_free. */
JANG_API JANG_MUST_CHECK jang_status jang_tokenize_pair(int32_t **ids, int32_t **types,
                                                        size_t *n_ids, jang_tokenizer *tok,
                                                        const char *first, size_t n_first,
                                                        const char *second, size_t n_second,
                                                        unsigned flags);

/* Turns ids into text, freed with jang_free. An id out of range is JANG_ERR_ARGUMENT. */
JANG_API JANG_MUST_CHECK jang_status jang_detokenize(char **text, size_t *n_bytes,
                                                     jang_tokenizer *tok, const int32_t *ids,
                                                     size_t n_ids, unsigned flags);

/* Renders the model's own chat template. context_json is an object with messages, and, where
 * wanted, tools, add_generation_prompt and whatever else the template reads; bos_token,
 * eos_token and the like are added from the tokenizer. JANG_ERR_UNSUPPORTED: no template;
 * JANG_ERR_FORMAT: the template raised an error, whose text is the message. */
JANG_API JANG_MUST_CHECK jang_status jang_chat_prompt(char **prompt, size_t *n_bytes,
                                                      jang_tokenizer *tok,
                                                      const char *context_json);

/* Returns the text of the model's own chat template, borrowed from the tokenizer; NULL if there is
 * none. */
JANG_API const char *jang_chat_template(const jang_tokenizer *tok);

/* Renders any template with any context, as jang_chat_prompt does with the model's. name stands in
 * error messages. */
JANG_API JANG_MUST_CHECK jang_status jang_template_render(char **text, size_t *n_bytes,
                                                          jang_context *ctx, const char *name,
                                                          const char *template_text,
                                                          size_t template_bytes,
                                                          const char *context_json);

/* Streaming decode: ids one at a time, whole characters out. */
typedef struct jang_text jang_text;
JANG_API JANG_MUST_CHECK jang_status jang_text_new(jang_text **out, jang_tokenizer *tok,
                                                   unsigned flags);
JANG_API void jang_text_free(jang_text *text);
/* Adds an id; *piece is what became known by it, often "", valid until the next call. */
JANG_API JANG_MUST_CHECK jang_status jang_text_push(const char **piece, size_t *n_bytes,
                                                    jang_text *text, int32_t id);
/* Ends the text: *piece is what was held back (an unfinished character becomes U+FFFD). */
JANG_API JANG_MUST_CHECK jang_status jang_text_finish(const char **piece, size_t *n_bytes,
                                                      jang_text *text);

/* ---- Model ----------------------------------------------------------------------------------- */

typedef struct jang_model jang_model;

typedef struct jang_model_options {
    bool exact;          /* f32 activations in quantized products instead of 8-bit ones */
    const char *backend; /* NULL: "cpu"; "ref" is the slow, plain one */
    bool prefault;       /* read all weights into memory at once, not as they are needed */
    bool lock;           /* ... and keep them there; fails where the system allows less */
} jang_model_options;

JANG_API jang_model_options jang_model_options_default(void);

/* Which hidden states make an embedding: the last token's, the mean of all, the first token's. */
typedef enum jang_pooling { JANG_POOL_LAST, JANG_POOL_MEAN, JANG_POOL_FIRST } jang_pooling;

typedef struct jang_model_info {
    const char *path;
    const char *family;    /* config.json's model_type: "llama" */
    const char *profile;   /* "JANG_4M", "4-bit", "bf16": as the model says, or found out */
    const char *backend;   /* backend and instruction set: "cpu avx512" */
    int64_t n_params;      /* weights in the model */
    uint64_t weight_bytes; /* bytes they take, scales and biases included */
    double nominal_bits;   /* mean of the widths over the quantized weights */
    double true_bits;      /* 8 * weight_bytes / n_params */
    uint64_t token_bytes;  /* weight bytes read to make one token */
    int32_t n_vocab, n_layer, n_embd;
    int32_t n_context; /* longest sequence the model was made for */
    double load_seconds;
    bool has_chat_template;
    bool has_sampling;   /* generation_config.json says how to sample */
    bool writes;         /* it generates text; encoders, classifiers, some embedding models don't */
    bool is_encoder;     /* a token sees all of its text: pairs of texts make sense to it */
    int32_t n_label;     /* scores of a classifier (JANG_TASK_LABEL); 0: it is none */
    int32_t n_embedding; /* numbers of an embedding (JANG_TASK_EMBED) */
    jang_pooling pooling; /* as its makers pool (sentence-transformers' files), or as is usual */
} jang_model_info;

/* Opens a model: a directory of safetensors with config.json, or a .jang file. Weights stay in the
 * mapped files. Errors name the file and tensor. */
JANG_API JANG_MUST_CHECK jang_status jang_model_open(jang_model **out, jang_context *ctx,
                                                     const char *path,
                                                     const jang_model_options *options);
JANG_API void jang_model_free(jang_model *model);

JANG_API const jang_model_info *jang_model_get_info(const jang_model *model);

/* Returns the model's tokenizer, borrowed; NULL if the model has none. */
JANG_API jang_tokenizer *jang_model_tokenizer(jang_model *model);

/* Whether the model ends its turn with this id (generation_config.json, config.json, tokenizer). */
JANG_API bool jang_model_is_end(const jang_model *model, int32_t id);

/* Describes a model without loading it, as JSON text (freed with jang_free): files, config,
 * profile, nominal and true bits, and each tensor with role, tier, bits, shape, bytes. */
JANG_API JANG_MUST_CHECK jang_status jang_inspect(char **json, size_t *n_bytes, jang_context *ctx,
                                                  const char *path);

/* ---- Session: one sequence and its cache ----------------------------------------------------- */

typedef struct jang_session jang_session;

/* Q8, Q4: integers of 8 or 4 bits. Q5: keys of 6 bits and values of 4. Of Q4 and Q5 the page of 64
 * tokens that is being written stays in f16 until it is full. */
typedef enum jang_kv_type {
    JANG_KV_F16 = 0,
    JANG_KV_F32 = 1,
    JANG_KV_Q8 = 2,
    JANG_KV_Q4 = 3,
    JANG_KV_Q5 = 4
} jang_kv_type;

typedef struct jang_session_options {
    int32_t n_context;    /* most tokens to hold; 0: the model's own limit */
    jang_kv_type kv_type; /* storage of keys and values */
    int32_t n_batch;      /* most tokens a pass takes; longer input is cut up (512) */
} jang_session_options;

JANG_API jang_session_options jang_session_options_default(void);

/* Starts an empty sequence. The cache grows with the sequence. The model must outlive it. */
JANG_API JANG_MUST_CHECK jang_status jang_session_new(jang_session **out, jang_model *model,
                                                      const jang_session_options *options);
JANG_API void jang_session_free(jang_session *session);

/* Appends tokens to the sequence and computes them. logits, if not NULL, takes the logits after
 * each: f32 [n_ids, n_vocab]. Errors: JANG_ERR_ARGUMENT for an id out of range, JANG_ERR_FULL,
 * JANG_ERR_MEMORY; the sequence then is as before, but logits may be written in part. */
JANG_API JANG_MUST_CHECK jang_status jang_session_append(jang_session *session, const int32_t *ids,
                                                         size_t n_ids, float *logits);

/* Returns the logits after the last token, f32 [n_vocab]; NULL if there are none: the sequence is
 * empty, was cut short, or its prompt was stopped. Valid until the session changes. */
JANG_API const float *jang_session_logits(const jang_session *session);

/* Number of tokens held. */
JANG_API size_t jang_session_length(const jang_session *session);

/* Forgets all but the first n_ids tokens. */
JANG_API JANG_MUST_CHECK jang_status jang_session_truncate(jang_session *session, size_t n_ids);

/* ---- Grammars: what a generated text may look like ------------------------------------------- */

/* A compiled grammar: immutable, and the one object that several threads may use at once. */
typedef struct jang_grammar jang_grammar;

typedef enum jang_grammar_kind {
    /* A JSON schema: the text is one JSON value that fits. Keywords: type (also a list), enum,
     * const, properties (they come in the order of the schema), required, additionalProperties,
     * patternProperties, min/maxProperties, items, prefixItems, min/maxItems, min/maxLength,
     * pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, anyOf,
     * oneOf (read as anyOf), allOf, $ref within the schema, $defs, nullable, true and false.
     * Other keywords that restrict are refused, annotations ignored. An object with properties
     * has no others unless additionalProperties says so. docs/grammar.md has the details. */
    JANG_GRAMMAR_SCHEMA = 0,
    /* The same, but what cannot be enforced is dropped instead of refused. */
    JANG_GRAMMAR_SCHEMA_LOOSE = 1,
    JANG_GRAMMAR_JSON = 2,        /* any JSON value; there is no text */
    JANG_GRAMMAR_JSON_OBJECT = 3, /* any JSON object; there is no text */
    JANG_GRAMMAR_GBNF = 4,        /* rules as llama.cpp writes them; the text is its rule root */
    JANG_GRAMMAR_REGEX = 5,       /* the whole text matches a regular expression */
    /* JSON that puts parts together. A part is a string (that text), a list (one after the other)
     * or an object:
     *   {"literal": S}                     that text
     *   {"marker": S}                      the special token S, or that text where it is none
     *   {"schema": {...}}                  a JSON value; {"schema": ..., "loose": true},
     *                                      {"schema": ..., "style": "python"} for its literals
     *   {"json": "value"}                  any JSON value, or "object"
     *   {"regex": S}, {"gbnf": S}
     *   {"any_until": [S, ...]}            any text up to and with the first of these markers
     *   {"any_except": [S, ...]}           any text without these markers, perhaps none
     *   {"sequence": [P, ...]}, {"choice": [P, ...]}, {"optional": P}
     *   {"repeat": P, "min": N, "max": N, "separator": P}     min 0, no max and no separator
     *                                      unless given
     *   {"fields": [{"part": P, "required": B}, ...], "separator": P}
     *                                      some of these in this order, the required ones at least
     *   {"lazy": [{"marker": S, "then": P}, ...], "again": B, "required": B}
     *                                      any text; where a marker turns up, its part must
     *                                      follow, and then the end or, with again, any text as
     *                                      before; required: a marker must turn up
     *   {"define": {NAME: P, ...}, "in": P}, {"use": NAME}   parts by name, recursion allowed */
    JANG_GRAMMAR_STRUCTURE = 6,
} jang_grammar_kind;

/* Compiles a grammar. Errors name the place ("schema.properties.a.pattern: ..."): JANG_ERR_FORMAT
 * for what is malformed or cannot be satisfied, JANG_ERR_UNSUPPORTED for what is well formed but
 * cannot be enforced or is over a limit. The context must outlive the grammar. */
JANG_API JANG_MUST_CHECK jang_status jang_grammar_new(jang_grammar **out, jang_context *ctx,
                                                      jang_grammar_kind kind, const char *text,
                                                      size_t n_bytes);
/* What was started with the grammar goes on with it. */
JANG_API void jang_grammar_free(jang_grammar *grammar);

/* Matches a text: *n_ok bytes from its start can begin a text of the grammar; *complete, if not
 * NULL, tells whether all of it is such a text. */
JANG_API JANG_MUST_CHECK jang_status jang_grammar_match(size_t *n_ok, bool *complete,
                                                        jang_grammar *grammar, const char *text,
                                                        size_t n_bytes);

/* ---- Generation ------------------------------------------------------------------------------ */

typedef struct jang_bias {
    int32_t id;
    float bias; /* added to the logit; -100 and less: never drawn */
} jang_bias;

/* Each step works on what the one before left, in this order: biases, penalties, grammar, top_k,
 * typical_p, top_p, min_p, temperature, draw. */
typedef struct jang_sampling {
    float temperature; /* 0: always the likeliest token */
    float top_p;       /* keep the likeliest tokens whose probabilities sum to this; 1: all */
    int32_t top_k;     /* keep this many; 0: all */
    float min_p;       /* keep those at least this times as likely as the likeliest; 0: all */
    float typical_p;   /* keep those of the most typical surprise that sum to this; 0, 1: all */
    float repetition_penalty;   /* divides the logits of what was there already; 0, 1: none */
    int32_t repetition_context; /* in so many last tokens, the prompt's included; 0: all */
    float frequency_penalty;    /* subtracted for each time a token was generated, -2 to 2 */
    float presence_penalty;     /* subtracted once if it was generated at all, -2 to 2 */
    const jang_bias *biases;    /* [n_biases] */
    size_t n_biases;
    uint64_t seed;
} jang_sampling;

/* Fills in the model's own defaults (generation_config.json); for a model that has none,
 * temperature 0.7 and top_p 0.95. */
JANG_API jang_sampling jang_sampling_default(const jang_model *model);

/* Receives text as it is made, whole characters only; between the passes over a long prompt it is
 * called with n_bytes 0. Returns false to stop. */
typedef bool (*jang_text_fn)(void *user, const char *piece, size_t n_bytes);

typedef enum jang_finish {
    JANG_FINISH_END,       /* the model ended its turn */
    JANG_FINISH_LENGTH,    /* n_max tokens, or the context is full */
    JANG_FINISH_CANCELLED, /* the callback returned false, or jang_engine_cancel was called */
    JANG_FINISH_STOP,      /* one of the request's stop strings (engine) */
    JANG_FINISH_ERROR,     /* see the event's status and message (engine) */
} jang_finish;

typedef struct jang_generate_stats {
    size_t n_prompt;    /* tokens of the prompt */
    size_t n_reused;    /* of these, found in the session's cache */
    size_t n_generated; /* the end token not counted */
    double prompt_seconds, generate_seconds;
    jang_finish finish;
} jang_generate_stats;

/* Makes the session hold exactly the prompt, reusing the longest common beginning, then generates
 * up to n_max tokens (0: until the context is full). The generated tokens stay in the session.
 * Sampling draws depend on seed and prompt alone. stats may be NULL. */
JANG_API JANG_MUST_CHECK jang_status jang_generate(jang_session *session, const int32_t *prompt,
                                                   size_t n_prompt, size_t n_max,
                                                   const jang_sampling *sampling,
                                                   jang_text_fn on_text, void *user,
                                                   jang_generate_stats *stats);

/* ---- Conversion ------------------------------------------------------------------------------ */

typedef struct jang_convert_options {
    const char *source;  /* Hugging Face or MLX directory, .jang or GGUF file */
    const char *output;  /* directory to make; unused with plan_only */
    const char *profile; /* "JANG_4M", "4M", "mixed_3_6", "f16"/"bf16"/"f32"; NULL: see bits */
    int bits;            /* uniform width, where profile is NULL */
    int group_size;      /* 32, 64 or 128; 0: 64, or 32 where 64 divides no row */
    /* "mse" (also NULL), "rtn", "gptq", "awq", "awq+gptq", "best", or "auto": the best for
     * time_limit and memory_limit; see docs/quantization.md */
    const char *method;
    bool force;     /* replace what is in output */
    bool plan_only; /* make the plan, write nothing */
    jang_progress_fn on_progress;
    void *user;
    /* Text or .jsonl file; NULL: a built-in text, but for rtn, and mse where no matrix has 2 bits,
     * which then have none. */
    const char *calibration;
    int64_t calibration_tokens; /* at most so many (32768) */
    bool resume;     /* of a method that calibrates: finished matrices are kept in OUTPUT.work */
    double budget;   /* instead of a profile: nominal bits, 2 to 8, to be spent by errors */
    uint64_t size;   /* instead of a profile: bytes of all weights, likewise */
    bool keep_codes; /* quantized matrices keep their codes; where neither a profile nor the like is
                        given, all others stay in their floating types */
    const char *overrides; /* JSON file of widths for single matrices; NULL: none */
    int32_t tune_steps;    /* codes and scales tuned through the whole model, in so many steps; -1:
                              as the method does (docs/cli.md) */
    int64_t gradient_tokens; /* of gptq: what errors of outputs do to the answers is learnt from the
                                gradients of so many; 0: not; -1: as the method does */
    double time_limit;       /* of "auto": seconds; 0: an hour */
    uint64_t memory_limit;   /* of "auto": bytes; 0: what the machine has to spare */
} jang_convert_options;

JANG_API jang_convert_options jang_convert_options_default(void);

/* Converts. *plan_json, if not NULL, takes the plan as JSON text (freed with jang_free): profile,
 * nominal_bits, true_bits, weight_bytes, and an array "rows" of {role, tier, bits, tensors,
 * params, bytes}, and "left_out" of {what, tensors, params, bytes}: what of the source the output
 * does without (a vision tower). The output appears whole or not at all. */
JANG_API JANG_MUST_CHECK jang_status jang_convert(char **plan_json, jang_context *ctx,
                                                  const jang_convert_options *options);

/* Returns the names of the profiles jang_convert knows, ended by NULL. */
JANG_API const char *const *jang_profile_names(void);

/* ---- Export ---------------------------------------------------------------------------------- */

typedef struct jang_export_options {
    const char *source; /* whatever jang_convert takes */
    const char *format; /* "hf": safetensors in a floating type; "gguf", "awq": docs/export.md */
    const char *output; /* the directory to make; of gguf the file */
    const char *type;   /* of hf: "f16" (also NULL), "bf16", "f32"; of gguf: "exact" (also NULL),
                           "small" */
    bool force;         /* replace what is there */
    jang_progress_fn on_progress;
    void *user;
} jang_export_options;

/* Writes a model in a form that other programs read. *report_json, if not NULL, takes what became
 * of it as JSON text (freed with jang_free): format, params, weight_bytes, true_bits, "rows" of
 * {from, to, tensors, exact, params, bytes, error}, by the forms before and after, where exact is
 * the number of tensors whose numbers are all the same and error the root of the mean squared
 * difference over that of the numbers; "tensors" of the same, each with its name; and "notes", of
 * what the form cannot say. Of hf it is the plan of jang_convert. The output appears whole or not
 * at all. Errors: JANG_ERR_UNSUPPORTED for a family or setting that the form has no place for. */
JANG_API JANG_MUST_CHECK jang_status jang_export(char **report_json, jang_context *ctx,
                                                 const jang_export_options *options);

#ifdef __cplusplus
}
#endif

#include "jang_engine.h"

#endif
