"""The page stands alone, says what the tables say, and stays light."""

from __future__ import annotations

import numpy as np
import pandas as pd
import synthetic
from PIL import Image
from reporting import HAND, page_of
from synthetic import sweep_of


def test_the_page_stands_alone_and_says_what_the_tables_say(folder):
    path = folder(sweep_of(HAND, prune={"rule": "halving", "eta": 3}))
    page = page_of([path])
    rows = page.table("converged")
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["mean environment steps"] == "30,000 [5,159, 85,412]"
    assert rows[1]["converged"] == "2 of 3 [9%, 99%]"
    assert rows[2]["final IQM"] == "-"
    assert "Pruning was on (halving, eta 3). Lanes stopped early because they looked slow: 1, of 1 trials." in page.text
    assert "This biases convergence statistics" in page.text
    assert "Lanes that diverged (to values that are not finite): 1." in page.text
    assert "count as never converged, up to the full horizon." in page.text
    assert "Lanes that spent their budget without converging: 1." in page.text
    assert "Leading in the search, not confirmed" in page.text
    assert "Best" not in page.text
    assert page.scripts == 1
    assert sum(title.startswith("trial 2: 1 of 3") for title in page.titles) == 4
    figures = path / "report" / "figures"
    names = {"survival", "learning", "values", "slices", "stability", "cost", "profile"}
    assert {file.name for file in figures.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for name in names:
        with Image.open(figures / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
        assert (figures / f"{name}.svg").read_text().rstrip().endswith("</svg>")
    assert sum(link.startswith("data:") for link in page.links) == 2 * len(names)  # for a screen and for a telephone


def test_names_are_text_whatever_is_in_them(folder):
    data = sweep_of(HAND)
    name = "<script>alert('$x$')</script> & co"
    data.settings["hparams"]["note"] = "</td><b>"
    renamed = type(data)(
        name, *(getattr(data, f) for f in ("settings", "plan", "provenance", "trials", "lanes", "curves"))
    )
    page = page_of([folder(renamed)])
    assert name in page.text
    assert page.scripts == 1


def test_a_large_sweep_stays_light(folder):
    path = folder(synthetic.sweep(210, 2))
    page = page_of([path])
    assert len(page.table("median")) == 50
    assert "The best 50 of 210 trials; trials.csv beside this page has all." in page.text
    assert (path / "report" / "report.html").stat().st_size < 2_500_000
    assert len(pd.read_csv(path / "report" / "trials.csv")) == 213  # three of them confirmed
