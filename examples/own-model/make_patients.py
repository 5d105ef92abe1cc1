"""Write made-up patients with chronic wounds, 240 visits a hospital: anna, berta, carla and dora.csv.

No patient is real; the formula below is the whole truth. Each hospital sees other wounds, and what
it does not measure is missing. Carla's system exports square millimetres. Dora takes no part: her
patients are there to measure the model on.
"""

import csv
from pathlib import Path

import numpy as np

VISITS = 240
WARDS = ("surgery", "dermatology", "geriatrics")
# name: (seed, mean age, median wound in cm², share of diabetics, shares of the wards)
HOSPITALS = {
    "anna": (1, 58, 3.0, 0.25, (0.6, 0.3, 0.1)),
    "berta": (2, 66, 6.0, 0.45, (0.3, 0.5, 0.2)),
    "carla": (3, 77, 10.0, 0.60, (0.1, 0.2, 0.7)),
    "dora": (4, 68, 5.0, 0.40, (0.4, 0.3, 0.3)),
}


def visits(name: str) -> list[dict[str, object]]:
    """Draw one hospital's visits; a patient comes one to three times."""
    seed, mean_age, median_cm2, diabetics, wards = HOSPITALS[name]
    draw = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    patient = 0
    while len(rows) < VISITS:
        patient += 1
        age = int(np.clip(draw.normal(mean_age, 11), 18, 99))
        diabetes, smoker = draw.random() < diabetics, draw.random() < 0.3
        ward = str(draw.choice(WARDS, p=wards))
        for _ in range(min(int(draw.integers(1, 4)), VISITS - len(rows))):
            cm2 = median_cm2 * float(np.exp(draw.normal(0, 0.8)))
            albumin = float(np.clip(draw.normal(38 - (age - 60) / 10, 5), 15, 55))
            # Small wounds heal; a large one hurts a diabetic twice; below 32 g/l hardly any does.
            score = 2.2 - np.log(cm2) * (1.6 if diabetes else 0.7) - 0.6 * smoker
            score -= 2.0 * (albumin < 32) + 0.02 * (age - 65)
            healed = draw.random() < 1 / (1 + np.exp(-score))
            row: dict[str, object] = {
                "patient_id": f"{name[0].upper()}{1000 + patient}",
                "age": age,
                "ward": ward,
                "diabetes": "yes" if diabetes else "no",
                "smoker": "" if draw.random() < 0.2 else ("yes" if smoker else "no"),
                "albumin": "?" if draw.random() < 0.15 else f"{albumin:.1f}",
                "wound_cm2": f"{cm2:.2f}",
                "healed": "yes" if healed else "no",
            }
            if name == "berta":
                row["albumin"] = "NA"  # not measured there at all
            if name == "carla":
                row["wound_mm2"] = f"{100 * float(str(row.pop('wound_cm2'))):.0f}"
            rows.append(row)
    return rows


def main() -> None:
    """Write the files beside this one."""
    for name in HOSPITALS:
        rows = visits(name)
        path = Path(__file__).with_name(f"{name}.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
