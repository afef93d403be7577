"""Ray Data: scikit-learn's digits as a data set of rows, scored by actors, queried by LDR."""

import numpy as np
import ray
import torch
from sklearn.datasets import load_digits

from vaal_ext.integrations.ray import LDRBatches, select_rows
from vaal_ext.models import MLP

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
labelled = np.arange(100)
for query in range(2):
    model = MLP(64, 10, hidden=64)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(200):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(X[labelled]), y[labelled]).backward()
        optimiser.step()
    with torch.no_grad():
        accuracy = (model(X[1200:]).argmax(1) == y[1200:]).double().mean()
    print(f"{len(labelled)} labels: accuracy {accuracy:.3f}")
    if query == 0:
        left = np.setdiff1d(np.arange(1200), labelled)
        pool = ray.data.from_items([{"sample_index": i, "x": X[i].numpy()} for i in left])
        settings = {"model": lambda trained=model: trained, "eps": 0.5}
        scored = pool.map_batches(
            LDRBatches, batch_size=256, concurrency=1, fn_constructor_kwargs=settings
        )
        labelled = np.concatenate([labelled, select_rows(scored.materialize(), 50)])
ray.shutdown()
