/* temporary */
#include "template/tmpl_run.h"
tval tm_format_percent(tm_core *t, tval format, tval values) {
    (void)format;
    (void)values;
    tm_fail(t, "TODO");
}
tval tm_format_braces(tm_core *t, tval format, const tm_args *args) {
    (void)format;
    (void)args;
    tm_fail(t, "TODO");
}
tval tm_format_map(tm_core *t, tval format, tval args) {
    (void)format;
    (void)args;
    tm_fail(t, "TODO");
}
tval tm_striptags(tm_core *t, tval args) {
    (void)args;
    tm_fail(t, "TODO");
}
