// The other layers, as products whose inputs threads hold: of each row a quarter of 32, 8 side by side.

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

// The last layer: three classes' logits of each voxel, float32 [n, 3, voxels]. weights: float32 [3, channels].
extern "C" __global__ void __launch_bounds__(THREADS)
    leave(const uint4* x, const float2* affine, const float* weights, const float* bias, float* logits, int channels, int voxels) {
    const int n = blockIdx.y, voxel = blockIdx.x * THREADS + threadIdx.x;
    if (voxel >= voxels) return;
    float sums[3] = {bias[0], bias[1], bias[2]};
    for (int part = 0; part < channels / 8; part++) {
        const uint4 value = x[((size_t)n * voxels + voxel) * (channels / 8) + part];
        const u32 pairs[4] = {value.x, value.y, value.z, value.w};
        const float2* by = affine + n * channels + part * 8;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float2 scale = __ldg(by + i);
            const float one = fmaxf((i % 2 ? high(pairs[i / 2]) : low(pairs[i / 2])) * scale.x + scale.y, 0.f);
#pragma unroll
            for (int c = 0; c < 3; c++) sums[c] += one * __ldg(weights + c * channels + part * 8 + i);
        }
    }
#pragma unroll
    for (int c = 0; c < 3; c++) logits[((size_t)n * 3 + c) * voxels + voxel] = sums[c];
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
