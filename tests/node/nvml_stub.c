/* Made up: eight GPUs of two NUMA nodes, answered through the C interface that nvidia-ml-py loads. */
#include <stdio.h>
#include <string.h>

typedef long gpu; /* handle: index + 1 */
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci;
typedef struct { unsigned long long total, available, used; } memory;

#define ANSWER(name, ...) int name(__VA_ARGS__)
#define NUMBER(name, value) ANSWER(name, gpu g, unsigned *out) { *out = (value); return 0; }
#define PAIR(name, value) ANSWER(name, gpu g, unsigned *now, unsigned *next) { *now = *next = (value); return 0; }
#define OF_LINK(name, value) ANSWER(name, gpu g, unsigned link, unsigned *out) { *out = (value); return 0; }
#define TEXT(name, ...) ANSWER(name, gpu g, char *out, unsigned n) { snprintf(out, n, __VA_ARGS__); return 0; }

ANSWER(nvmlInitWithFlags, unsigned flags) { return 0; }
ANSWER(nvmlInit_v2, void) { return 0; }
ANSWER(nvmlShutdown, void) { return 0; }
const char *nvmlErrorString(int code) { return "stub"; }
ANSWER(nvmlSystemGetDriverVersion, char *out, unsigned n) { snprintf(out, n, "580.95.05"); return 0; }
ANSWER(nvmlSystemGetCudaDriverVersion_v2, int *out) { *out = 13000; return 0; }
ANSWER(nvmlDeviceGetCount_v2, unsigned *out) { *out = 8; return 0; }
ANSWER(nvmlDeviceGetHandleByIndex_v2, unsigned index, gpu *out) { *out = index + 1; return index < 8 ? 0 : 2; }
ANSWER(nvmlDeviceGetPciInfo_v3, gpu g, pci *out) {
    memset(out, 0, sizeof *out);
    sprintf(out->bus_id, "00000000:%02X:00.0", (unsigned)(0x10 * g + 1));
    return 0;
}
ANSWER(nvmlDeviceGetMemoryInfo, gpu g, memory *out) {
    out->total = 150754820096ULL; out->used = 1ULL << 30; out->available = out->total - out->used;
    return 0;
}
TEXT(nvmlDeviceGetName, "NVIDIA H200")
TEXT(nvmlDeviceGetUUID, "GPU-deadbeef-0000-1111-2222-33334444000%ld", g)
TEXT(nvmlDeviceGetSerial, "165292300%04ld", g)
NUMBER(nvmlDeviceGetPersistenceMode, 1)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, g == 6 ? 8 : 16) /* GPU 5 is in a bad slot */
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, 16)
PAIR(nvmlDeviceGetEccMode, 1)
PAIR(nvmlDeviceGetMigMode, g == 8)
OF_LINK(nvmlDeviceGetNvLinkState, 1)
OF_LINK(nvmlDeviceGetNvLinkVersion, 4)
OF_LINK(nvmlDeviceGetNvLinkRemoteDeviceType, 2)
ANSWER(nvmlDeviceGetCurrentClocksEventReasons, gpu g, unsigned long long *out) { *out = g == 3 ? 0x40 : 1; return 0; }
