"""What a fill costs: proportional fee and slippage. `ledger.py` charges them; this file only holds and checks them."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike


class Costs(struct.PyTreeNode):
    """Trading costs as fractions (1e-4 is one basis point). The default is not free.

    Attributes:
        fee: of the traded notional, both sides. None: absent, not traced.
        slippage: half the spread and more; a buy pays `price * (1 + slippage)`, a sale gets `price * (1 - slippage)`.
            None: absent, not traced.
    """

    fee: ArrayLike | None = 1e-4
    slippage: ArrayLike | None = 5e-4

    @classmethod
    def from_bps(cls, fee: float = 1.0, slippage: float = 5.0) -> Costs:
        """Costs given in basis points."""
        return cls(fee=fee * 1e-4, slippage=slippage * 1e-4)

    def validate(self) -> Costs:
        """Return self, or raise ValueError where a rate is no number in [0, 0.5)."""
        for name in ("fee", "slippage"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 <= float(rate) < 0.5:
                raise ValueError(
                    f"{name} {float(rate):g} is outside [0, 0.5): it is a fraction of the traded value, "
                    "1e-4 is one basis point"
                )
        return self

    def cast(self, dtype: DTypeLike) -> Costs:
        """The rates as strongly typed arrays: a Python float and a float32 would be two compilations."""
        return Costs(
            fee=None if self.fee is None else jnp.asarray(self.fee, dtype),
            slippage=None if self.slippage is None else jnp.asarray(self.slippage, dtype),
        )
