// Convolutions of levels whose sides are whole tiles: a tile and its border stay in shared memory for all 27 taps.

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
#pragma unroll 9
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
