from vaal_ext._standin import fisher_direction as fisher_direction
