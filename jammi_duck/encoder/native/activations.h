/* Activations of float32 vectors. */

#ifndef ACTIVATIONS_H
#define ACTIVATIONS_H

#include "encoder.h"
#include "vectors.h"

#define LOG2E 1.44269504088896341f

/* x times the probability that a normal variable is below x. */
INLINE floats exact_gelu(floats x) {
    /* The error function by formula 7.1.26 of Abramowitz and Stegun (1964), within 1.5e-7. */
    floats z = larger(x, -x) * 0.70710678118654752f;
    floats t = 1.0f / (z * 0.3275911f + 1.0f);
    floats p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    floats tail = p * t * power_of_two(z * z * -LOG2E) * 0.5f;
    return x * chosen(x < 0.0f, tail, 1.0f - tail);
}

/* The same within 0.0004, which bfloat16 does not see: a polynomial that was fitted by least squares to |x| <= 4, its
 * weights raised where the error was largest. */
INLINE floats rounded_gelu(floats x) {
    floats near = smaller(larger(x, all(-4.0f)), all(4.0f));
    floats square = near * near;
    floats p = all(-1.301298235e-09f);
    p = p * square + 1.041962800e-07f;
    p = p * square - 3.657138829e-06f;
    p = p * square + 7.485512459e-05f;
    p = p * square - 1.006490971e-03f;
    p = p * square + 9.505400517e-03f;
    p = p * square - 6.588784706e-02f;
    p = p * square + 3.986733966e-01f;
    return x * (near * p + 0.5f);
}

INLINE floats silu(floats x) { return x / (power_of_two(x * -LOG2E) + 1.0f); }

/* With tanh(y) = 2 / (1 + exp(-2y)) - 1. */
INLINE floats gelu_by_tanh(floats x) {
    floats y = (x * x * x * 0.044715f + x) * 0.79788456080286536f;
    return x / (power_of_two(y * (-2.0f * LOG2E)) + 1.0f);
}

INLINE floats activated(floats x, int activation, int exactly) {
    switch (activation) {
    case GELU: return exactly ? exact_gelu(x) : rounded_gelu(x);
    case GELU_TANH: return gelu_by_tanh(x);
    case RELU: return chosen(x < 0.0f, all(0.0f), x);
    default: return silu(x);
    }
}

#endif
