"""Outlines: limbs as unions of convex pieces."""

import numpy as np

from finegrain.synthetic.shapes import disc, points, ribbon


def test_a_ribbon_has_a_disc_at_each_joint_and_a_tapered_piece_between_joints():
    line = points((3.1, 4.7), (9.3, 20.9), (9.3, 41.2))
    radii = (2.3, 3.7, 1.1)

    pieces = ribbon(line, radii)

    assert len(pieces) == 5
    for joint, radius, piece in zip(line, np.asarray(radii, np.float32), pieces[2:], strict=True):
        np.testing.assert_array_equal(piece, disc(joint, float(radius)))
    lower = [(9.3 - 3.7, 20.9), (9.3 - 1.1, 41.2), (9.3 + 1.1, 41.2), (9.3 + 3.7, 20.9)]
    np.testing.assert_allclose(pieces[1], lower, rtol=1e-6)
    assert all(piece.dtype == np.float32 for piece in pieces)
    assert len(ribbon(line, radii, round_end=False)) == 4
