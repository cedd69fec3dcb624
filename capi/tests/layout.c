/* The layout of every struct, as layout.h states it; capi/src/tests.rs holds the library to the same list. */
#include "scrubjay.h"

#ifdef __cplusplus
#define ASSERT(condition) static_assert(condition, #condition)
#elif __STDC_VERSION__ >= 201112L
#define ASSERT(condition) _Static_assert(condition, #condition)
#else
#define JOINED_(a, b) a##b
#define JOINED(a, b) JOINED_(a, b)
#define ASSERT(condition) extern int JOINED(assertion_, __LINE__)[(condition) ? 1 : -1]
#endif

#define SJ_FIELD(type, field, offset) ASSERT(offsetof(type, field) == offset);
#define SJ_SIZE(type, size) ASSERT(sizeof(type) == size);
#include "layout.h"

int main(void) { return 0; }
