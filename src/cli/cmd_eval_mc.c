/* cmd_eval_mc.c - jang eval mc: multiple choice, scored by the likelihood of the answers.
 *
 * A row is {"question": S, "choices": [S, ...], "answer": index, letter or text, "subject": S?}.
 * Prompts follow MMLU (arXiv:2009.03300): the question, the choices under letters, "Answer:". The
 * letter style scores the letters behind it; the text style shows no choices and scores each one's
 * own words, as a sum and per byte. */
#include "command.h"
#include "eval_measure.h"
#include "eval_rows.h"
#include "eval_shares.h"
#include "eval_stats.h"
#include "interrupt.h"
#include "open_model.h"
#include "server/text_buf.h"
#include "terminal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_CHOICES 26

typedef struct mc_arguments {
    text_list models;
    const char *data, *shots_from;
    int64_t n_shots, limit, n_threads;
    int style;
    bool exact, json;
} mc_arguments;

static const mc_arguments mc_defaults = {0};

enum { STYLE_LETTER, STYLE_TEXT };
static const char *const style_names[] = {"letter", "text", NULL};

static const opt_spec mc_options[] = {
    {.name = "data",
     .kind = OPT_TEXT,
     .required = true,
     .value = "FILE.jsonl",
     .target = offsetof(mc_arguments, data),
     .help = "Questions: {\"question\": ..., \"choices\": [...], \"answer\": ...} a line."},
    {.name = "shots",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(mc_arguments, n_shots),
     .max = 64,
     .help = "Put this many answered questions before each."},
    {.name = "shots-from",
     .kind = OPT_TEXT,
     .value = "FILE.jsonl",
     .target = offsetof(mc_arguments, shots_from),
     .help = "Where they come from; without it the first ones of --data, which then are not "
             "asked."},
    {.name = "style",
     .kind = OPT_CHOICE,
     .value = "STYLE",
     .target = offsetof(mc_arguments, style),
     .choices = style_names,
     .help = "Score the letters of the choices, or their texts."},
    {.name = "limit",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(mc_arguments, limit),
     .max = INT64_MAX,
     .help = "Ask only the first N questions; 0: all."},
    EVAL_EXACT_OPTION(mc_arguments),
    EVAL_JSON_OPTION(mc_arguments),
    THREADS_OPTION(mc_arguments),
};

/* ---- Questions ---- */

typedef struct question {
    const char *text, *subject; /* borrowed from the row; subject may be NULL */
    const char *choices[MOST_CHOICES];
    size_t n_choices, answer;
} question;

static bool find_answer(question *q, const json_t *answer) {
    const char *text = json_string_value(answer);
    q->answer = q->n_choices;
    if (json_is_integer(answer) && json_integer_value(answer) >= 0) {
        q->answer = (size_t)json_integer_value(answer);
    } else if (text && text[0] >= 'A' && text[0] <= 'Z' && !text[1]) {
        q->answer = (size_t)(text[0] - 'A');
    } else if (text) {
        for (size_t i = 0; i < q->n_choices; i++) {
            q->answer = !strcmp(q->choices[i], text) ? i : q->answer;
        }
    }
    return q->answer < q->n_choices;
}

static bool read_question(question *q, const json_t *row, const char *path, size_t number) {
    *q = (question){.text = row_text(row, "question", path, number),
                    .subject = json_string_value(json_object_get(row, "subject"))};
    if (!q->text) {
        return false;
    }
    const json_t *choices = json_object_get(row, "choices");
    q->n_choices = json_array_size(choices);
    bool ok = q->n_choices >= 2 && q->n_choices <= MOST_CHOICES;
    for (size_t i = 0; ok && i < q->n_choices; i++) {
        q->choices[i] = json_string_value(json_array_get(choices, i));
        ok = q->choices[i] != NULL;
    }
    if (!ok) {
        cli_failed("%s, row %zu: \"choices\" must be 2 to %d strings", path, number + 1,
                   MOST_CHOICES);
        return false;
    }
    if (!find_answer(q, json_object_get(row, "answer"))) {
        cli_failed("%s, row %zu: \"answer\" must be a choice's number from 0, letter or text", path,
                   number + 1);
        return false;
    }
    return true;
}

/* The question as the model sees it, up to where the answer begins. */
static void add_question(tbuf *b, const question *q, int style) {
    if (style == STYLE_TEXT) {
        tbuf_printf(b, "Question: %s\nAnswer:", q->text);
        return;
    }
    tbuf_printf(b, "%s\n", q->text);
    for (size_t i = 0; i < q->n_choices; i++) {
        tbuf_printf(b, "%c. %s\n", (char)('A' + (int)i), q->choices[i]);
    }
    tbuf_printf(b, "Answer:");
}

static void add_answer(tbuf *b, const question *q, size_t choice, int style) {
    if (style == STYLE_TEXT) {
        tbuf_printf(b, " %s", q->choices[choice]);
    } else {
        tbuf_printf(b, " %c", (char)('A' + (int)choice));
    }
}

/* ---- Scoring ---- */

typedef struct mc_job {
    const mc_arguments *a;
    jang_context *ctx;
    jang_model *model;
    jang_session *session;
    float *rows; /* [EVAL_CHUNK, n_vocab] */
    size_t n_vocab;
    json_t *questions, *shots;
    size_t n_right, n_right_by_byte, n_asked;
} mc_job;

/* Log-likelihood of ids [from, n) given those before them, the session holding a beginning of
 * them. Only what differs from the session's is computed, a chunk at a time. */
static bool score_ids(double *out, mc_job *j, const int32_t *ids, size_t from, size_t n) {
    double sum = 0;
    for (size_t at = jang_session_length(j->session); at < n;) {
        size_t k = n - at < EVAL_CHUNK ? n - at : EVAL_CHUNK;
        bool wanted = at + k >= from;
        jang_status status = jang_session_append(j->session, ids + at, k, wanted ? j->rows : NULL);
        if (status != JANG_OK) {
            library_failed(j->ctx, status);
            return false;
        }
        for (size_t i = 0; wanted && i < k && at + i + 1 < n; i++) {
            if (at + i + 1 >= from) {
                const float *row = j->rows + i * j->n_vocab;
                size_t top;
                sum += (double)row[ids[at + i + 1]] - row_log_sum(row, j->n_vocab, &top);
            }
        }
        at += k;
    }
    *out = sum;
    return true;
}

/* Leaves in the session the beginning that it shares with ids, at most n of them. */
static bool keep_shared(mc_job *j, size_t n) {
    size_t held = jang_session_length(j->session);
    jang_status status = jang_session_truncate(j->session, n < held ? n : held);
    if (status != JANG_OK) {
        library_failed(j->ctx, status);
    }
    return status == JANG_OK;
}

/* Scores one answer: prompt, then the answer's text. The border between the two is where their
 * joint tokens part from the prompt's own. */
static bool score_answer(double *out, mc_job *j, const char *prompt, size_t n_prompt,
                         const char *whole, size_t n_whole) {
    int32_t *before = NULL, *ids = NULL;
    size_t n_before = 0, n = 0, from = 0;
    unsigned flags = JANG_TOKENIZE_ADD_SPECIAL | JANG_TOKENIZE_NO_SPECIAL;
    jang_tokenizer *tok = jang_model_tokenizer(j->model);
    jang_status status = jang_tokenize(&before, &n_before, tok, prompt, n_prompt, flags);
    if (status == JANG_OK) {
        status = jang_tokenize(&ids, &n, tok, whole, n_whole, flags);
    }
    bool ok = status == JANG_OK;
    if (!ok) {
        library_failed(j->ctx, status);
    }
    while (ok && from < n_before && from + 1 < n && before[from] == ids[from]) {
        from++;
    }
    if (ok && (from == 0 || n > (size_t)jang_model_get_info(j->model)->n_context)) {
        cli_failed("%s: a question of %zu tokens does not fit", j->a->data, n);
        ok = false;
    }
    /* The row before the first scored id is needed again, hence the one less. */
    ok = ok && keep_shared(j, from - 1) && score_ids(out, j, ids, from, n);
    jang_free(j->ctx, before);
    jang_free(j->ctx, ids);
    return ok;
}

static bool ask(mc_job *j, const tbuf *shots, const question *q) {
    tbuf prompt = {0};
    tbuf_printf(&prompt, "%s", shots->data ? shots->data : "");
    add_question(&prompt, q, j->a->style);
    double best = -INFINITY, best_by_byte = -INFINITY;
    size_t chosen = 0, chosen_by_byte = 0;
    bool ok = !prompt.failed;
    jang_status status = jang_session_truncate(j->session, 0);
    ok = ok && status == JANG_OK;
    for (size_t i = 0; ok && i < q->n_choices; i++) {
        tbuf whole = {0};
        tbuf_printf(&whole, "%s", prompt.data);
        add_answer(&whole, q, i, j->a->style);
        double score = 0;
        ok = !whole.failed && score_answer(&score, j, prompt.data, prompt.n, whole.data, whole.n);
        double by_byte = score / (double)(whole.n - prompt.n);
        if (score > best) {
            best = score;
            chosen = i;
        }
        if (by_byte > best_by_byte) {
            best_by_byte = by_byte;
            chosen_by_byte = i;
        }
        free(whole.data);
    }
    free(prompt.data);
    j->n_asked++;
    j->n_right += chosen == q->answer;
    j->n_right_by_byte += chosen_by_byte == q->answer;
    return ok;
}

/* The answered questions that stand before each. */
static bool make_shots(tbuf *b, const mc_job *j) {
    const mc_arguments *a = j->a;
    const json_t *from = j->shots ? j->shots : j->questions;
    const char *path = a->shots_from ? a->shots_from : a->data;
    if ((size_t)a->n_shots > json_array_size(from)) {
        cli_failed("%s: %zu rows, --shots wants %lld", path, json_array_size(from),
                   (long long)a->n_shots);
        return false;
    }
    for (size_t i = 0; i < (size_t)a->n_shots; i++) {
        question q;
        if (!read_question(&q, json_array_get(from, i), path, i)) {
            return false;
        }
        add_question(b, &q, a->style);
        add_answer(b, &q, q.answer, a->style);
        tbuf_printf(b, "\n\n");
    }
    return true;
}

static bool ask_all(mc_job *j) {
    const mc_arguments *a = j->a;
    tbuf shots = {0};
    bool ok = make_shots(&shots, j);
    size_t first = a->shots_from ? 0 : (size_t)a->n_shots, n = json_array_size(j->questions);
    if (ok && first >= n) {
        cli_failed("%s: no question is left to ask", a->data);
        ok = false;
    }
    for (size_t i = first; ok && i < n; i++) {
        question q;
        ok = read_question(&q, json_array_get(j->questions, i), a->data, i) && ask(j, &shots, &q);
        if (ok && interrupt_seen()) {
            cli_failed("stopped");
            ok = false;
        }
    }
    free(shots.data);
    return ok;
}

static bool open_session(mc_job *j) {
    if (!jang_model_tokenizer(j->model)) {
        cli_failed("%s has no tokenizer", jang_model_get_info(j->model)->path);
        return false;
    }
    jang_session_options options = jang_session_options_default();
    options.n_batch = EVAL_CHUNK;
    jang_status status = jang_session_new(&j->session, j->model, &options);
    if (status != JANG_OK) {
        library_failed(j->ctx, status);
        return false;
    }
    j->n_vocab = (size_t)jang_model_get_info(j->model)->n_vocab;
    j->rows = malloc(EVAL_CHUNK * j->n_vocab * sizeof *j->rows);
    if (!j->rows) {
        cli_failed("out of memory");
    }
    return j->rows != NULL;
}

/* ---- The command ---- */

static json_t *result_json(const mc_job *j, const char *path) {
    double right = (double)j->n_right / (double)j->n_asked;
    double by_byte = (double)j->n_right_by_byte / (double)j->n_asked;
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:f}", "model", path, "questions",
                     (json_int_t)j->n_asked, "accuracy", right, "error",
                     j->n_asked > 1 ? share_error(right, j->n_asked) : 0, "accuracy_by_byte",
                     by_byte, "error_by_byte",
                     j->n_asked > 1 ? share_error(by_byte, j->n_asked) : 0);
}

static bool run_model(json_t *results, mc_job *j, const char *path) {
    j->n_right = j->n_right_by_byte = j->n_asked = 0;
    j->model = open_model(j->ctx, path, j->a->exact);
    bool ok = j->model && open_session(j) && ask_all(j);
    if (ok) {
        json_array_append_new(results, result_json(j, path));
    }
    free(j->rows);
    jang_session_free(j->session);
    jang_model_free(j->model);
    j->rows = NULL;
    j->session = NULL;
    return ok;
}

/* Scores by byte are of use where answers differ in length: where they are texts. */
static void print_results(const json_t *results, const mc_arguments *a) {
    const share_column columns[] = {
        {">right %", "accuracy", "error"},
        {">per byte %", a->style == STYLE_TEXT ? "accuracy_by_byte" : NULL, "error_by_byte"}};
    shares_print(results, a->json, "questions", columns, 2);
}

static int mc_run(const void *arguments) {
    const mc_arguments *a = arguments;
    interrupt_catch();
    mc_job job = {.a = a, .ctx = open_context(a->n_threads)};
    json_t *results = json_array();
    size_t most = a->limit ? (size_t)a->limit + (a->shots_from ? 0 : (size_t)a->n_shots) : 0;
    bool ok = job.ctx && results && (job.questions = rows_read(a->data, most)) != NULL;
    if (ok && a->shots_from) {
        ok = (job.shots = rows_read(a->shots_from, (size_t)a->n_shots)) != NULL;
    }
    for (size_t i = 0; ok && i < a->models.n; i++) {
        ok = run_model(results, &job, a->models.items[i]);
    }
    if (ok) {
        print_results(results, a);
    }
    json_decref(results);
    json_decref(job.questions);
    json_decref(job.shots);
    jang_context_free(job.ctx);
    return ok ? CLI_DONE : CLI_FAILED;
}

const cli_command cmd_eval_mc = {
    .name = "eval mc",
    .summary = "multiple choice, scored by likelihood (MMLU style)",
    .operand = "MODEL",
    .operand_target = offsetof(mc_arguments, models),
    .many_operands = true,
    .details = "The answer whose continuation of the prompt is likeliest counts as chosen. The "
               "figure behind +- is one standard error.",
    .example = "  jang eval mc smol-4m smol-2s --data mmlu.jsonl --shots 5\n"
               "  jang eval mc smol-4m --data arc.jsonl --style text\n",
    .options = mc_options,
    .n_options = sizeof mc_options / sizeof mc_options[0],
    .defaults = &mc_defaults,
    .n_default_bytes = sizeof mc_defaults,
    .run = mc_run,
};
