"""LDR as a query strategy of other active-learning libraries; each module needs its own library."""
