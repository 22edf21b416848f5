// The 3D U-Net in 16 bits on tensor cores, from Ampere on. `network.py` has it compiled, with IS_BF16 as 1 or 0, and says
// in which order kernels are launched.
//
// Activations are [n, depth, height, width, channels], channels a multiple of 32, and lie in memory as convolutions leave
// them. Whoever reads them normalises and rectifies on the way: `affine` holds a factor and a summand of each window and
// channel, and a null pointer means that values are read as they are. Sums are in float32.
//
// Products are 16 voxels x 16 inputs x 8 outputs. Of a thread, `g` is its row (and row g + 8), `t` its quarter of 32
// channels: the columns of weights are ordered so that a thread ends with 8 outputs side by side, 16 bytes.

typedef unsigned int u32;

constexpr int THREADS = 128, WARPS = 4;
constexpr int DEEP = 4, HIGH = 8, WIDE = 16;  // a tile of `convolve`
constexpr int LOW = 4, FLAT = 2;              // height and depth of one of `descend`

// --- instructions ---

#if IS_BF16
#define KIND "bf16"
__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
#else
#define KIND "f16"
__device__ __forceinline__ float low(u32 pair) {
    float value;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(value) : "r"(pair));
    return value;
}
__device__ __forceinline__ float high(u32 pair) { return low(pair >> 16); }
#endif

__device__ __forceinline__ u32 packed(float first, float second) {
    u32 pair;
    asm("cvt.rn." KIND "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

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

// --- what kernels share ---

struct Affine {
    float2 of[8];  // of the thread's channels
};

__device__ __forceinline__ Affine affine_at(const float2* affine, int n, int channels, int channel) {
    Affine found;
#pragma unroll
    for (int i = 0; i < 8; i++) found.of[i] = affine ? affine[n * channels + channel + i] : make_float2(1.f, 0.f);
    return found;
}

__device__ __forceinline__ u32 rectified(u32 pair, float2 a, float2 b) {
    return packed_positive(low(pair) * a.x + a.y, high(pair) * b.x + b.y);
}

__device__ __forceinline__ uint4 rectified(uint4 value, const Affine& by) {
    return make_uint4(rectified(value.x, by.of[0], by.of[1]), rectified(value.y, by.of[2], by.of[3]),
                      rectified(value.z, by.of[4], by.of[5]), rectified(value.w, by.of[6], by.of[7]));
}

// the thread's 8 outputs of row g (half 0) or g + 8 (half 1)
__device__ __forceinline__ uint4 outputs_of(const float (&sums)[4][4], int half) {
    return make_uint4(packed(sums[0][half * 2], sums[0][half * 2 + 1]), packed(sums[1][half * 2], sums[1][half * 2 + 1]),
                      packed(sums[2][half * 2], sums[2][half * 2 + 1]), packed(sums[3][half * 2], sums[3][half * 2 + 1]));
}

struct Moments {
    float2 of[8];  // of the thread's outputs: their sum, and that of their squares
};

__device__ __forceinline__ void add(Moments& moments, const float (&sums)[4][4], int half) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float value = sums[i / 2][half * 2 + i % 2];
        moments.of[i].x += value;
        moments.of[i].y += value * value;
    }
}

// both rows' outputs of one product: of voxels `place` and `place + 8`, in channels from `part` * 8 on
__device__ __forceinline__ void store(uint4* out, const float (&sums)[4][4], size_t place, int parts, int part,
                                      Moments& moments) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        out[(place + half * 8) * parts + part] = outputs_of(sums, half);
        add(moments, sums, half);
    }
}

// adds up a block's moments, and writes those of its 32 channels
__device__ __forceinline__ void write(Moments& moments, float2* to) {
    __shared__ float2 shares[WARPS][32];
    const int lane = threadIdx.x % 32;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) {
            moments.of[i].x += __shfl_xor_sync(0xffffffffu, moments.of[i].x, mask);
            moments.of[i].y += __shfl_xor_sync(0xffffffffu, moments.of[i].y, mask);
        }
        if (lane < 4) shares[threadIdx.x / 32][lane * 8 + i] = moments.of[i];
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        float2 total = make_float2(0.f, 0.f);
        for (int warp = 0; warp < WARPS; warp++) {
            total.x += shares[warp][lane].x;
            total.y += shares[warp][lane].y;
        }
        to[lane] = total;
    }
}

// --- 3x3x3, sides of whole tiles ---

// A tile's voxels with the border that its taps need, 32 channels of each, in shared memory. A row of them has one voxel
// before the tile's `OWN` and `RIGHT` after them. Of a tile of stride 2 those at odd places lie behind those at even ones: voxels
// that are read together lie side by side. A voxel's four parts change places with its position, so that no two of 8
// neighbours' lie in the same banks.
template <int ROWS_DEEP, int ROWS_HIGH, int OWN, int RIGHT, int STRIDE>
struct Halo {
    static constexpr int ROWS = ROWS_DEEP * ROWS_HIGH, PITCH = OWN + 2;

    __device__ __forceinline__ static u32 place(u32 w) { return STRIDE == 1 ? w : w % 2 * (PITCH / 2) + w / 2; }

    __device__ __forceinline__ static void store(uint4* halo, int row, int w, uint4 value) {
        const u32 v = row * PITCH + place(w);
        halo[v * 4 + (threadIdx.x % 4 ^ v / 2 % 4)] = value;
    }

    // d0, h0, w0: where the tile itself begins. Each thread has one part; a warp goes along a row, 8 voxels at a time
    __device__ __forceinline__ static void fill(uint4* halo, const uint4* x, const float2* affine, int parts, int chunk, int n,
                                                int d0, int h0, int w0, int depth, int height, int width) {
        constexpr int EACH = OWN / 8, AHEAD = 10 / EACH, SIDES = 1 + RIGHT;
        const int lane = threadIdx.x % 32, part = chunk * 4 + lane % 4;
        const Affine by = affine_at(affine, n, parts * 8, part * 8);
        x += (size_t)n * depth * height * width * parts + part;
        for (int first = threadIdx.x / 32; first < ROWS; first += WARPS * AHEAD) {
            uint4 value[AHEAD][EACH];
            bool inside[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int row = first + i * WARPS, d = d0 - 1 + row / ROWS_HIGH, h = h0 - 1 + row % ROWS_HIGH;
                inside[i] = row < ROWS && (u32)d < depth && (u32)h < height;
#pragma unroll
                for (int k = 0; k < EACH; k++)
                    value[i][k] = inside[i] ? __ldcg(x + ((d * height + h) * width + w0 + lane / 4 + k * 8) * parts)
                                            : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
#pragma unroll
                for (int k = 0; k < EACH; k++) {
                    if (affine && inside[i]) value[i][k] = rectified(value[i][k], by);
                    if (first + i * WARPS < ROWS) store(halo, first + i * WARPS, 1 + lane / 4 + k * 8, value[i][k]);
                }
        }
#pragma unroll
        for (int i = threadIdx.x / 4; i < ROWS * SIDES; i += THREADS / 4) {
            const int row = i / SIDES, w = i % SIDES * (OWN + 1);
            const int d = d0 - 1 + row / ROWS_HIGH, h = h0 - 1 + row % ROWS_HIGH, across = w0 - 1 + w;
            const bool inside = (u32)d < depth && (u32)h < height && (u32)across < width;
            uint4 value = inside ? __ldcg(x + ((d * height + h) * width + across) * parts) : make_uint4(0, 0, 0, 0);
            if (affine && inside) value = rectified(value, by);
            store(halo, row, w, value);
        }
    }

    // the address of this thread's half row of 16 voxels that lie side by side from (row, first) on
    __device__ __forceinline__ static u32 address(const uint4* halo, int row, int first) {
        const u32 lane = threadIdx.x % 32, v = row * PITCH + first + lane % 16;
        return (u32)__cvta_generic_to_shared(halo) + v * 64 + 16 * (lane / 16 ^ v / 2 % 4);
    }
};

using Whole = Halo<DEEP + 2, HIGH + 2, WIDE, 1, 1>;
using Halved = Halo<2 * FLAT + 1, 2 * LOW + 1, 2 * WIDE, 0, 2>;

__device__ __forceinline__ void multiply_row(float (&sums)[4][4], const u32 (&a)[4], uint4 p, uint4 q) {
    multiply(sums[0], a[0], a[1], a[2], a[3], p.x, p.y);
    multiply(sums[1], a[0], a[1], a[2], a[3], p.z, p.w);
    multiply(sums[2], a[0], a[1], a[2], a[3], q.x, q.y);
    multiply(sums[3], a[0], a[1], a[2], a[3], q.z, q.w);
}

// A block computes 32 outputs of a tile; each warp a slice of it, 8 rows of 16 voxels. Inputs are those of `first`, then
// those of `second`, in chunks of 32. A row that is fetched once serves three taps. moments: [n, tiles, outputs].
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    convolve(const uint4* first, const float2* first_affine, const uint4* second, const float2* second_affine,
             const uint4* weights, uint4* out, float2* moments, int first_chunks, int chunks, int outputs, int depth, int height,
             int width) {
    extern __shared__ __align__(128) uint4 halo[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int blocks = outputs / 32, block = blockIdx.x % blocks, tile = blockIdx.x / blocks, n = blockIdx.y;
    const int across = width / WIDE, down = height / HIGH;
    const int w0 = tile % across * WIDE, h0 = tile / across % down * HIGH, d0 = tile / across / down * DEEP;
    float sums[HIGH][4][4] = {};
    const uint4* weight = weights + (size_t)block * chunks * 27 * 4 * 32 + lane;
    uint4 b[2][3][2];  // of both halves of the inputs; each is fetched while the other is multiplied
#pragma unroll
    for (int i = 0; i < 6; i++) b[0][i / 2][i % 2] = __ldg(weight + (i / 2 * 4 + i % 2) * 32);
    for (int chunk = 0; chunk < chunks; chunk++) {
        __syncthreads();
        if (chunk < first_chunks)
            Whole::fill(halo, first, first_affine, first_chunks * 4, chunk, n, d0, h0, w0, depth, height, width);
        else
            Whole::fill(halo, second, second_affine, (chunks - first_chunks) * 4, chunk - first_chunks, n, d0, h0, w0, depth,
                        height, width);
        __syncthreads();
#pragma unroll 1
        for (u32 tap = 0; tap < 9; tap++) {  // of depth and width; those of height are below
            u32 places[4];  // the parts' order repeats after 4 rows
#pragma unroll
            for (int i = 0; i < 4; i++) places[i] = Whole::address(halo, (warp + tap / 3) * (HIGH + 2) + i, tap % 3);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                if (k) weight += 3 * 4 * 32;
                if (!k || tap < 8 || chunk + 1 < chunks)
#pragma unroll
                    for (int i = 0; i < 6; i++) b[1 - k][i / 2][i % 2] = __ldg(weight + (i / 2 * 4 + (1 - k) * 2 + i % 2) * 32);
#pragma unroll
                for (int row = 0; row < HIGH + 2; row++) {
                    u32 a[4];
                    fragment(a, (places[row % 4] ^ k * 32) + row / 4 * (4 * Whole::PITCH * 64));
#pragma unroll
                    for (int up = 0; up < 3; up++)
                        if (row >= up && row - up < HIGH) multiply_row(sums[row - up], a, b[k][up][0], b[k][up][1]);
                }
            }
        }
    }
    Moments found = {};
#pragma unroll
    for (int h = 0; h < HIGH; h++) {
        const size_t place = (((size_t)n * depth + d0 + warp) * height + h0 + h) * width + w0 + g;
        store(out, sums[h], place, outputs / 8, block * 4 + t, found);
    }
    write(found, moments + ((size_t)n * (gridDim.x / blocks) + tile) * outputs + block * 32);
}

// The same with a stride of 2, for 64 outputs: each warp computes two rows. Depth, height and width are those of the outputs.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    descend(const uint4* x, const float2* affine, const uint4* weights, uint4* out, float2* moments, int chunks, int outputs,
            int depth, int height, int width) {
    extern __shared__ __align__(128) uint4 halo[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int blocks = outputs / 32, pairs = (blocks + 1) / 2, tile = blockIdx.x / pairs, n = blockIdx.y;
    const int pair = blockIdx.x % pairs, block[2] = {pair * 2, min(pair * 2 + 1, blocks - 1)};
    const int across = width / WIDE, down = height / LOW;
    const int w0 = tile % across * WIDE, h0 = tile / across % down * LOW, d0 = tile / across / down * FLAT;
    float sums[2][2][4][4] = {};
    for (int chunk = 0; chunk < chunks; chunk++) {
        __syncthreads();
        Halved::fill(halo, x, affine, chunks * 4, chunk, n, d0 * 2, h0 * 2, w0 * 2, depth * 2, height * 2, width * 2);
        __syncthreads();
#pragma unroll 3
        for (int tap = 0; tap < 27; tap++) {
            uint4 b[2][2][2];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const size_t place = ((size_t)block[i / 4] * chunks + chunk) * 27 + tap;
                b[i / 4][i / 2 % 2][i % 2] = __ldg(weights + (place * 4 + i % 4) * 32 + lane);
            }
#pragma unroll
            for (int row = 0; row < 2; row++) {
                const int d = warp / 2 * 2 + tap / 9, h = (warp % 2 * 2 + row) * 2 + tap / 3 % 3;
                const u32 address = Halved::address(halo, d * (2 * LOW + 1) + h, Halved::place(tap % 3));
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    u32 a[4];
                    fragment(a, address ^ k * 32);
                    multiply_row(sums[0][row], a, b[0][k][0], b[0][k][1]);
                    multiply_row(sums[1][row], a, b[1][k][0], b[1][k][1]);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (i == 1 && block[0] == block[1]) return;
        Moments found = {};
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const int h = h0 + warp % 2 * 2 + row;
            const size_t place = (((size_t)n * depth + d0 + warp / 2) * height + h) * width + w0 + g;
            store(out, sums[i][row], place, outputs / 8, block[i] * 4 + t, found);
        }
        write(found, moments + ((size_t)n * (gridDim.x / pairs) + tile) * outputs + block[i] * 32);
    }
}

// --- products whose inputs threads hold: of each row a quarter of 32, 8 side by side ---

struct Rows {
    int at[4], z[4], y[4], x[4];  // of a thread, of 32 voxels of a warp: rows g, g + 8, g + 16, g + 24
};

__device__ __forceinline__ Rows rows_from(int first, int height, int width) {
    Rows rows;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        rows.at[i] = first + i * 8 + threadIdx.x % 32 / 4;
        rows.x[i] = rows.at[i] % width;
        rows.y[i] = rows.at[i] / width % height;
        rows.z[i] = rows.at[i] / width / height;
    }
    return rows;
}

// 32 voxels x 32 inputs x 32 outputs
__device__ __forceinline__ void multiply(float (&sums)[2][4][4], const uint4 (&a)[4], const uint4 (&b)[4]) {
#pragma unroll
    for (int m = 0; m < 2; m++) {
        const uint4 p = a[m * 2], q = a[m * 2 + 1];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            multiply(sums[m][i * 2], p.x, q.x, p.y, q.y, b[i].x, b[i].y);
            multiply(sums[m][i * 2 + 1], p.x, q.x, p.y, q.y, b[i].z, b[i].w);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            multiply(sums[m][i * 2], p.z, q.z, p.w, q.w, b[2 + i].x, b[2 + i].y);
            multiply(sums[m][i * 2 + 1], p.z, q.z, p.w, q.w, b[2 + i].z, b[2 + i].w);
        }
    }
}

__device__ __forceinline__ void load(uint4 (&b)[4], const uint4* weights) {
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = __ldg(weights + i * 32);
}

// As `convolve`, of any stride and sides, for levels of few voxels: straight from the caches. A block computes 32 outputs of
// 32 voxels; its warps share the inputs, and add up what they have. Depth, height and width are those of the outputs.
extern "C" __global__ void __launch_bounds__(THREADS)
    gather(const uint4* first, const float2* first_affine, const uint4* second, const float2* second_affine,
           const uint4* weights, uint4* out, float2* moments, int first_chunks, int chunks, int outputs, int depth, int height,
           int width, int stride) {
    __shared__ float shares[WARPS][32][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, voxels = depth * height * width;
    const int blocks = outputs / 32, block = blockIdx.x % blocks, tile = blockIdx.x / blocks, n = blockIdx.y;
    const Rows rows = rows_from(tile * 32, height, width);
    float sums[2][4][4] = {};
    for (int chunk = warp; chunk < chunks; chunk += WARPS) {
        const bool is_first = chunk < first_chunks;
        const uint4* x = is_first ? first : second;
        const float2* affine = is_first ? first_affine : second_affine;
        const int parts = (is_first ? first_chunks : chunks - first_chunks) * 4;
        const int part = (is_first ? chunk : chunk - first_chunks) * 4 + lane % 4;
        const Affine by = affine_at(affine, n, parts * 8, part * 8);
        const uint4* weight = weights + (size_t)(block * chunks + chunk) * 27 * 4 * 32 + lane;
#pragma unroll 3
        for (int tap = 0; tap < 27; tap++, weight += 4 * 32) {
            uint4 a[4], b[4];
            load(b, weight);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int z = rows.z[i] * stride + tap / 9 - 1, y = rows.y[i] * stride + tap / 3 % 3 - 1,
                          w = rows.x[i] * stride + tap % 3 - 1;
                const bool inside = (u32)z < depth * stride && (u32)y < height * stride && (u32)w < width * stride;
                const int place = ((n * depth * stride + z) * height * stride + y) * width * stride + w;
                a[i] = inside ? x[place * parts + part] : make_uint4(0, 0, 0, 0);
                if (affine && inside) a[i] = rectified(a[i], by);
            }
            multiply(sums, a, b);
        }
    }
#pragma unroll
    for (int i = 0; i < 32; i++) shares[warp][i][lane] = sums[i / 16][i / 4 % 4][i % 4];
    __syncthreads();
    const int half = warp % 2;  // a warp goes on with rows that it has the numbers of
    float mine[4][4] = {};
#pragma unroll
    for (int i = 0; i < 8; i++)
        for (int other = 0; other < WARPS; other++)
            mine[i / 2][i % 2] += shares[other][warp / 2 * 16 + i / 2 * 4 + half * 2 + i % 2][lane];
    const size_t place = (size_t)n * voxels + tile * 32 + warp * 8 + lane / 4;
    out[place * (outputs / 8) + block * 4 + lane % 4] = outputs_of(mine, 0);
    Moments found = {};
    add(found, mine, 0);
    write(found, moments + ((size_t)n * (gridDim.x / blocks) + tile) * outputs + block * 32);
}

// The first convolution: of one channel, 27 taps are the inputs of a product. Tiles are those of `convolve`.
extern "C" __global__ void __launch_bounds__(THREADS)
    enter(const unsigned short* x, const uint4* weights, uint4* out, float2* moments, int outputs, int depth, int height,
          int width) {
    constexpr int ROW = WIDE + 2, PLANE = (HIGH + 2) * ROW, ALL = (DEEP + 2) * PLANE;
    __shared__ unsigned short near[ALL];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int blocks = outputs / 32, block = blockIdx.x % blocks, tile = blockIdx.x / blocks, n = blockIdx.y;
    const int across = width / WIDE, down = height / HIGH;
    const int w0 = tile % across * WIDE, h0 = tile / across % down * HIGH, d0 = tile / across / down * DEEP;
    for (int v = threadIdx.x; v < ALL; v += THREADS) {
        const int d = d0 - 1 + v / PLANE, h = h0 - 1 + v / ROW % (HIGH + 2), w = w0 - 1 + v % ROW;
        const bool inside = (u32)d < depth && (u32)h < height && (u32)w < width;
        near[v] = inside ? x[((n * depth + d) * height + h) * width + w] : 0;
    }
    uint4 b[4];
    load(b, weights + block * 4 * 32 + lane);
    int taps[8];  // of the thread; there are 27, and weights of others are 0
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int tap = min(t * 8 + i, 26);
        taps[i] = (warp + tap / 9) * PLANE + tap / 3 % 3 * ROW + tap % 3 + g;
    }
    __syncthreads();
    Moments found = {};
    for (int h = 0; h < HIGH; h += 2) {
        uint4 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 pairs[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int from = (h + i / 2) * ROW + i % 2 * 8;
                pairs[k] = near[taps[k * 2] + from] | (u32)near[taps[k * 2 + 1] + from] << 16;
            }
            a[i] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
        float sums[2][4][4] = {};
        multiply(sums, a, b);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const size_t place = (((size_t)n * depth + d0 + warp) * height + h0 + h + i) * width + w0 + g;
            store(out, sums[i], place, outputs / 8, block * 4 + t, found);
        }
    }
    write(found, moments + ((size_t)n * (gridDim.x / blocks) + tile) * outputs + block * 32);
}

// A transposed convolution, 2x2x2 with a stride of 2: one product for each of a voxel's 8 outputs. Shared memory keeps each
// thread's inputs. Depth, height and width are those of the inputs.
extern "C" __global__ void __launch_bounds__(THREADS)
    rise(const uint4* x, const float2* affine, const uint4* weights, const float* bias, uint4* out, int chunks, int outputs,
         int depth, int height, int width) {
    extern __shared__ __align__(128) uint4 halo[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4, voxels = depth * height * width;
    const int blocks = outputs / 32, block = blockIdx.x % blocks, n = blockIdx.y;
    const int first = blockIdx.x / blocks * THREADS + warp * 32;
    if (first >= voxels) return;
    const Rows rows = rows_from(first, height, width);
    for (int chunk = 0; chunk < chunks; chunk++) {
        const Affine by = affine_at(affine, n, chunks * 32, chunk * 32 + t * 8);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 value = x[((size_t)n * voxels + rows.at[i]) * chunks * 4 + chunk * 4 + t];
            halo[(chunk * 4 + i) * THREADS + threadIdx.x] = affine ? rectified(value, by) : value;
        }
    }
#pragma unroll 1
    for (int tap = 0; tap < 8; tap += 2) {  // two that lie side by side at once
        float sums[2][2][4][4];
#pragma unroll
        for (int i = 0; i < 64; i++)
            sums[i / 32][i / 16 % 2][i / 4 % 4][i % 4] = bias[block * 32 + t * 8 + i / 4 % 4 * 2 + i % 2];
        for (int chunk = 0; chunk < chunks; chunk++) {
            uint4 a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = halo[(chunk * 4 + i) * THREADS + threadIdx.x];
#pragma unroll
            for (int side = 0; side < 2; side++) {
                uint4 b[4];
                load(b, weights + (((size_t)block * chunks + chunk) * 8 + tap + side) * 4 * 32 + lane);
                multiply(sums[side], a, b);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int row = i / 2, z = rows.z[row] * 2 + tap / 4, y = rows.y[row] * 2 + tap / 2 % 2, w = rows.x[row] * 2 + i % 2;
            const size_t place = (((size_t)n * depth * 2 + z) * height * 2 + y) * width * 2 + w;
            out[place * (outputs / 8) + block * 4 + t] = outputs_of(sums[i % 2][row / 2], row % 2);
        }
    }
}

// The last layer: three classes' logits of each voxel, float32 [n, 3, voxels]. weights: float32 [3, channels]. Four threads
// share a voxel, and each of them adds up one class; a block goes through `VOXELS`.
constexpr int VOXELS = 256;
extern "C" __global__ void __launch_bounds__(THREADS)
    leave(const uint4* x, const float2* affine, const float* weights, const float* bias, float* logits, int channels, int voxels) {
    const int n = blockIdx.y, part = threadIdx.x % 4;
    const int end = min((blockIdx.x + 1) * VOXELS, voxels);
    for (int voxel = blockIdx.x * VOXELS + threadIdx.x / 4; voxel < end; voxel += THREADS / 4) {
        float sums[3] = {0.f, 0.f, 0.f};
        for (int chunk = 0; chunk < channels / 32; chunk++) {
            const uint4 value = x[((size_t)n * voxels + voxel) * (channels / 8) + chunk * 4 + part];
            const u32 pairs[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int channel = chunk * 32 + part * 8 + i;
                const float2 by = __ldg(affine + n * channels + channel);
                const float one = fmaxf((i % 2 ? high(pairs[i / 2]) : low(pairs[i / 2])) * by.x + by.y, 0.f);
#pragma unroll
                for (int c = 0; c < 3; c++) sums[c] += one * __ldg(weights + c * channels + channel);
            }
        }
#pragma unroll
        for (int c = 0; c < 3; c++)
#pragma unroll
            for (int mask = 1; mask < 4; mask *= 2) sums[c] += __shfl_xor_sync(0xffffffffu, sums[c], mask);
        const float sum = part == 0 ? sums[0] : part == 1 ? sums[1] : sums[2];
        if (part < 3) logits[((size_t)n * 3 + part) * voxels + voxel] = sum + bias[part];
    }
}

// From moments [n, tiles, channels] to the factor and summand of an instance normalisation, [n, channels].
extern "C" __global__ void __launch_bounds__(1024)
    settle(const float2* moments, const float* weight, const float* bias, float2* affine, int tiles, int channels, float voxels,
           float epsilon) {
    __shared__ float2 shares[32][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.x * 32 + lane, n = blockIdx.y;
    float2 total = make_float2(0.f, 0.f);
    for (int tile = warp; tile < tiles; tile += 32) {
        const float2 one = moments[((size_t)n * tiles + tile) * channels + channel];
        total.x += one.x;
        total.y += one.y;
    }
    shares[warp][lane] = total;
    __syncthreads();
    if (warp) return;
    for (int i = 1; i < 32; i++) {
        total.x += shares[i][lane].x;
        total.y += shares[i][lane].y;
    }
    const float mean = total.x / voxels, variance = fmaxf(total.y / voxels - mean * mean, 0.f);
    const float factor = weight[channel] * rsqrtf(variance + epsilon);
    affine[n * channels + channel] = make_float2(factor, bias[channel] - mean * factor);
}
