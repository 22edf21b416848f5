// Convolutions that cuDNN takes two to five times as long for as their bytes or products need, in 16 bits on tensor cores,
// from Ampere on. `convolutions.py` has this compiled, with IS_BF16 as 1 or 0.
//
// Products are 16 pixels x 16 inputs x 8 outputs. Of a thread, `g` is its row (and row g + 8), and `t` its place in it.
// Outputs are ordered so that a thread ends with neighbours.

typedef unsigned int u32;

constexpr int THREADS = 128, HIGH = 16, WIDE = 16;  // a tile; each of 4 warps computes 4 rows

#if IS_BF16
#define KIND "bf16"
#else
#define KIND "f16"
#endif

__device__ __forceinline__ u32 packed_positive(float first, float second) {  // below 0 is 0
    u32 pair;
    asm("cvt.rn.relu." KIND "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

__device__ __forceinline__ void multiply(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// 16 rows of 16 values from shared memory; each thread names the address of one row's half
__device__ __forceinline__ void fragment(u32 (&a)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address));
}

// In groups of at most 16 channels: 16 of several groups are one product, with zeros between the groups. A block computes 32
// channels. Pixels lie in shared memory with a border of one; a pixel's four parts change places with its position, so that
// no two of 8 neighbours' lie in the same banks.
extern "C" __global__ void __launch_bounds__(THREADS)
    grouped(const uint4* x, const uint4* weights, const float* bias, uint2* out, int channels, int side) {
    constexpr int PITCH = WIDE + 2, HALO = (HIGH + 2) * PITCH;
    __shared__ __align__(128) uint4 halo[HALO * 4];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, part = threadIdx.x % 4;
    const int chunks = channels / 32, chunk = blockIdx.x % chunks, tile = blockIdx.x / chunks, n = blockIdx.y;
    const int across = (side + WIDE - 1) / WIDE, w0 = tile % across * WIDE, h0 = tile / across * HIGH;
    constexpr int LOADS = (HALO * 4 + THREADS - 1) / THREADS;
    x += (size_t)n * side * side * (channels / 8) + chunk * 4 + part;
    uint4 value[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const int v = threadIdx.x / 4 + i * (THREADS / 4), h = h0 - 1 + v / PITCH, w = w0 - 1 + v % PITCH;
        const bool inside = v < HALO && (u32)h < side && (u32)w < side;
        value[i] = inside ? __ldcg(x + (h * side + w) * (channels / 8)) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const int v = threadIdx.x / 4 + i * (THREADS / 4);
        if (v < HALO) halo[v * 4 + (part ^ v / 2 % 4)] = value[i];
    }
    __syncthreads();
    float sums[4][4][4] = {};
    const u32 base = (u32)__cvta_generic_to_shared(halo);
#pragma unroll
    for (int right = 0; right < 3; right++) {
        uint4 b[3][2];
#pragma unroll
        for (int i = 0; i < 6; i++) b[i / 2][i % 2] = __ldg(weights + ((chunk * 3 + right) * 6 + i) * 32 + lane);
#pragma unroll
        for (int row = 0; row < 6; row++) {
            const int v = (warp * 4 + row) * PITCH + right + lane % 16;
            const u32 address = base + v * 64 + 16 * (lane / 16 ^ v / 2 % 4);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                u32 a[4];
                fragment(a, address ^ k * 32);
#pragma unroll
                for (int down = 0; down < 3; down++) {
                    const int h = row - down;
                    if (h < 0 || h >= 4) continue;
                    multiply(sums[h][k * 2], a[0], a[1], a[2], a[3], b[down][k].x, b[down][k].y);
                    multiply(sums[h][k * 2 + 1], a[0], a[1], a[2], a[3], b[down][k].z, b[down][k].w);
                }
            }
        }
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float4 added = __ldg((const float4*)bias + chunk * 8 + k * 4 + t);
#pragma unroll
        for (int h = 0; h < 4; h++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int y = h0 + warp * 4 + h, w = w0 + g + half * 8;
                if (y >= side || w >= side) continue;
                const float(&p)[4] = sums[h][k * 2];
                const float(&q)[4] = sums[h][k * 2 + 1];
                out[(((size_t)n * side + y) * side + w) * (channels / 4) + chunk * 8 + k * 4 + t] =
                    make_uint2(packed_positive(p[half * 2] + added.x, p[half * 2 + 1] + added.y),
                               packed_positive(q[half * 2] + added.z, q[half * 2 + 1] + added.w));
            }
    }
}

// The stem: 4x4 on blocks of 2x2 pixels, 16 channels, which lie in memory with their border. A block computes 64 outputs.
extern "C" __global__ void __launch_bounds__(THREADS)
    stem(const uint4* x, const uint4* weights, const float* bias, uint4* out, int channels, int side) {
    constexpr int PITCH = WIDE + 3, HALO = (HIGH + 3) * PITCH, LOADS = (HALO * 2 + THREADS - 1) / THREADS;
    __shared__ __align__(128) uint4 halo[HALO * 2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, part = threadIdx.x % 2;
    const int blocks = channels / 64, block = blockIdx.x % blocks, tile = blockIdx.x / blocks, n = blockIdx.y;
    const int across = (side + WIDE - 1) / WIDE, w0 = tile % across * WIDE, h0 = tile / across * HIGH;
    x += (size_t)n * (side + 3) * (side + 3) * 2 + part;
    uint4 value[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const u32 v = threadIdx.x / 2 + i * (THREADS / 2), h = h0 + v / PITCH, w = w0 + v % PITCH;
        const bool inside = v < HALO && h < side + 3 && w < side + 3;
        value[i] = inside ? __ldcg(x + (h * (side + 3) + w) * 2) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const u32 v = threadIdx.x / 2 + i * (THREADS / 2);
        if (v < HALO) halo[v * 2 + (part ^ v / 4 % 2)] = value[i];
    }
    __syncthreads();
    float sums[4][8][4] = {};
    const u32 base = (u32)__cvta_generic_to_shared(halo);
#pragma unroll 4
    for (u32 tap = 0; tap < 16; tap++) {
        uint4 b[4];
#pragma unroll
        for (int i = 0; i < 4; i++) b[i] = __ldg(weights + ((tap * blocks + block) * 4 + i) * 32 + lane);
#pragma unroll
        for (int h = 0; h < 4; h++) {
            const u32 v = (warp * 4 + h + tap / 4) * PITCH + tap % 4 + lane % 16;
            u32 a[4];
            fragment(a, base + v * 32 + 16 * (lane / 16 ^ v / 4 % 2));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                multiply(sums[h][i * 2], a[0], a[1], a[2], a[3], b[i].x, b[i].y);
                multiply(sums[h][i * 2 + 1], a[0], a[1], a[2], a[3], b[i].z, b[i].w);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float added[8];
#pragma unroll
        for (int i = 0; i < 8; i++) added[i] = __ldg(bias + block * 64 + k * 32 + t * 8 + i);
#pragma unroll
        for (int h = 0; h < 4; h++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int y = h0 + warp * 4 + h, w = w0 + g + half * 8;
                if (y >= side || w >= side) continue;
                u32 pairs[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float(&sum)[4] = sums[h][k * 4 + i];
                    pairs[i] = packed_positive(sum[half * 2] + added[i * 2], sum[half * 2 + 1] + added[i * 2 + 1]);
                }
                out[(((size_t)n * side + y) * side + w) * (channels / 8) + block * 8 + k * 4 + t] =
                    make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            }
    }
}
