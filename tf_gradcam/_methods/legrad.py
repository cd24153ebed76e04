"""LeGrad, the gradients of a vision transformer's scores by its attention. Listed in `registry`."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_gradcam._checks import check_counts
from tf_gradcam._methods.scene import Scene
from tf_gradcam._model import graph_gradient
from tf_gradcam._tensors import at_least_float32


@dataclasses.dataclass(frozen=True)
class legrad:
    """LeGrad: `L_j = mean_l mean_h mean_i ReLU(dS_l/dA_lhij)`, never negative, for vision transformers.

    `A_lhij` is the attention of block l, head h, that token i pays to token j, and `S_l` the score that the
    head of the model, with its final normalization, gives to the tokens after block l. Each gradient leads
    through one block only. The map is that of the tokens j that are patches.

    By default the layer is that with the tokens after the last block. With a block before as `layer`, or the
    sum after the attention inside one, the blocks up to it are read, and what follows is the head. What lies
    between two blocks, such as a position that is added, counts to the block before. The normalization of a
    block's sum belongs to the block if the blocks before the last end in one (post-norm), and else to the
    head (pre-norm).

    Source: Bousselham, Boggust, Chaybouti, Strobelt & Kuehne, "LeGrad", ICCV 2025 (arXiv 2404.03214). They
    then scale the map to [0, 1] by its minimum and maximum. For a head that pools tokens by attention they
    differentiate by that attention; here it is by that of the blocks for every head.

    Attributes:
        blocks: how many blocks are read, the last ones; `None` for all. The authors' code reads 2.
        mean_token: whether the head gets the mean of all tokens after a block in the place of each, as in
            the authors' code for CLIP, although its head reads the class token. By default the head gets
            the tokens as it does in the model.
    """

    blocks: int | None = None
    mean_token: bool = False

    reads_blocks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, optional=("blocks",))
        if not isinstance(self.mean_token, bool):
            raise TypeError(
                f"`mean_token` must be True or False. Received: mean_token={self.mean_token!r:.80}"
            )

    def explain(self, scene: Scene) -> tf.Tensor:
        """Return the map `(N, *grid)`."""
        blocks = scene.token_blocks()
        if self.blocks is not None:
            if self.blocks > len(blocks):
                raise ValueError(
                    f"`blocks` must be at most the number of blocks. Received: blocks={self.blocks}, and "
                    f"{len(blocks)} blocks up to the layer"
                )
            blocks = blocks[-self.blocks :]
        # The head runs once, on the tokens of all blocks as one batch.
        tokens = tf.concat([block.tokens for block in blocks], axis=0)
        given = tokens
        if self.mean_token:
            given = tf.broadcast_to(tf.reduce_mean(tokens, axis=1, keepdims=True), tf.shape(tokens))
            given = tf.ensure_shape(given, tokens.shape)
        gradients = graph_gradient(scene.tail_of_output(given), tokens)
        columns = []
        for block, gradient in zip(blocks, tf.split(gradients, len(blocks)), strict=True):
            along = tf.reduce_sum(at_least_float32(block.tokens) * tf.stop_gradient(gradient))
            by_attention = graph_gradient(along, block.attention)
            heads_and_queries = list(range(1, block.attention.shape.rank - 1))  # One head may have no axis.
            columns.append(tf.reduce_mean(tf.nn.relu(by_attention), axis=heads_and_queries))
        return scene.map_of_tokens(tf.add_n(columns) / len(blocks))
