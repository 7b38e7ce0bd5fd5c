/* Made up: three GPUs of different kinds, answered through the C interface that nvidia-ml-py loads.
 * 0: H200 with GPM. 1: L4 without GPM, ECC and memory sensor, whose energy we may not read. 2: H100 with two MIG
 * instances. STUB_HANGS: the temperature of GPU 1 never comes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef long gpu; /* handle: index + 1; a MIG instance: 100 * (index + 1) + place */
typedef unsigned long long u64;
typedef struct { u64 total, available, used; } memory;
typedef struct { unsigned gpu, memory; } rates;
typedef struct { u64 reference, violation; } violation;
typedef struct { unsigned id, scope; long long stamp, latency; int type, code; union { unsigned u; u64 ull; } value; } field;
typedef struct { double at; int busy; } sample;
typedef struct { unsigned id; int code; double value; char *words[3]; } metric;
typedef struct { unsigned version, count; sample *first, *second; metric metrics[333]; } request;

enum { OK, UNSUPPORTED = 3, FORBIDDEN = 4 };
#define ANSWER(name, ...) int name(__VA_ARGS__)
#define NUMBER(name, value) ANSWER(name, gpu g, unsigned *out) { *out = (value); return OK; }
#define WHOLE(g) if ((g) > 99) return UNSUPPORTED;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

ANSWER(nvmlInitWithFlags, unsigned flags) { return OK; }
ANSWER(nvmlInit_v2, void) { return OK; }
ANSWER(nvmlShutdown, void) { return OK; }
const char *nvmlErrorString(int code) { return "stub"; }
ANSWER(nvmlDeviceGetCount_v2, unsigned *out) { *out = 3; return OK; }
ANSWER(nvmlDeviceGetHandleByIndex_v2, unsigned index, gpu *out) { *out = index + 1; return index < 3 ? OK : 2; }
ANSWER(nvmlDeviceGetName, gpu g, char *out, unsigned n) {
    const char *names[] = {"NVIDIA H200", "NVIDIA L4", "NVIDIA H100"};
    snprintf(out, n, "%s", names[g - 1]);
    return OK;
}
ANSWER(nvmlDeviceGetMigMode, gpu g, unsigned *now, unsigned *next) {
    *now = *next = g == 3;
    return g == 2 ? UNSUPPORTED : OK;
}
NUMBER(nvmlDeviceGetMaxMigDeviceCount, 7)
ANSWER(nvmlDeviceGetMigDeviceHandleByIndex, gpu g, unsigned place, gpu *out) {
    *out = 100 * g + place;
    return place < 2 ? OK : 6;
}
ANSWER(nvmlDeviceGetGpuInstanceId, gpu g, unsigned *out) { *out = g % 100 ? 5 : 3; return OK; }
ANSWER(nvmlDeviceGetMemoryInfo, gpu g, memory *out) {
    out->total = g > 99 ? 20000000000ULL : 80000000000ULL;
    out->used = 1000000000ULL * (g % 100 + 1);
    return OK;
}
ANSWER(nvmlDeviceGetUtilizationRates, gpu g, rates *out) { WHOLE(g) out->gpu = 90; out->memory = 40; return g == 3 ? UNSUPPORTED : OK; }
NUMBER(nvmlDeviceGetPowerUsage, 300000 + 1000 * g)
ANSWER(nvmlDeviceGetTotalEnergyConsumption, gpu g, u64 *out) { *out = now() * 300000; return g == 2 ? FORBIDDEN : OK; }
ANSWER(nvmlDeviceGetClockInfo, gpu g, int kind, unsigned *out) { *out = kind == 1 ? 1980 : 3201; return OK; }
ANSWER(nvmlDeviceGetCurrentClocksEventReasons, gpu g, u64 *out) { *out = g == 1 ? 0x4 : 1; return OK; }
ANSWER(nvmlDeviceGetTemperature, gpu g, int sensor, unsigned *out) {
    if (g == 2 && getenv("STUB_HANGS")) sleep(1000);
    *out = 41;
    return OK;
}
NUMBER(nvmlDeviceGetEnforcedPowerLimit, 700000)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetPcieReplayCounter, 7)
ANSWER(nvmlDeviceGetPcieThroughput, gpu g, int kind, unsigned *out) { *out = kind ? 2048 : 1024; return OK; }
ANSWER(nvmlDeviceGetViolationStatus, gpu g, int kind, violation *out) { out->violation = kind ? 0 : 2500000000ULL; return OK; }
ANSWER(nvmlDeviceGetTotalEccErrors, gpu g, int kind, int which, u64 *out) { *out = kind; return g == 2 ? UNSUPPORTED : OK; }
ANSWER(nvmlDeviceGetFieldValues, gpu g, int n, field *values) {
    for (int i = 0; i < n; i++) {
        values[i].code = g == 2 || values[i].id == 197 || values[i].id == 198 ? UNSUPPORTED : OK;
        values[i].type = 1;
        values[i].value.u = 55;
    }
    return OK;
}
ANSWER(nvmlGpmQueryDeviceSupport, gpu g, unsigned *out) { out[1] = g != 2; return OK; }
ANSWER(nvmlGpmSampleAlloc, sample **out) { *out = calloc(1, sizeof(sample)); return OK; }
ANSWER(nvmlGpmSampleFree, sample *s) { free(s); return OK; }
ANSWER(nvmlGpmSampleGet, gpu g, sample *s) { s->at = now(); s->busy = 50; return g == 3 ? UNSUPPORTED : OK; }
ANSWER(nvmlGpmMigSampleGet, gpu g, unsigned instance, sample *s) { s->at = now(); s->busy = 10 * instance; return OK; }
ANSWER(nvmlGpmMetricsGet, request *r) {
    if (r->version != 1 || r->second->at <= r->first->at) return 2; /* the wrong way around */
    for (unsigned i = 0; i < r->count; i++) {
        metric *m = &r->metrics[i];
        m->code = m->id >= 60 ? UNSUPPORTED : OK; /* no NVLink */
        m->value = m->id == 20 || m->id == 21 ? 100 * m->id : r->second->busy + m->id / 100.0;
    }
    return OK;
}
